import pytest

from tests.training.tiny import At, new_folder, trainer_of
from zoo.training import saving
from zoo.training.checkpoint import CheckpointFolder


def test_a_checkpoint_is_written_when_asked_for(tmp_path):
    steps = []

    class Folder(CheckpointFolder):
        def save(self, state, **options):
            steps.append(state["position"]["step"])
            super().save(state, **options)

    def saves(**options):
        steps.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("zoo.training.trainer.CheckpointFolder", Folder)
            patch.setattr("zoo.training.saving.HEARTBEAT_SECONDS", 0.0)  # the clock's resolution
            trainer_of(**options).fit(folder=new_folder(tmp_path), callbacks=callbacks)
        return list(steps)

    callbacks = []
    assert saves(epochs=2) == [0, 6, 12]
    assert saves(epochs=1, checkpoints={"every_steps": 2}) == [0, 2, 4, 6, 6]
    assert saves(epochs=1, checkpoints={"every_minutes": 1e-9}) == [0, 1, 2, 3, 4, 5, 6, 6]
    callbacks = [At(3, lambda t: setattr(t.signals, "save", True))]
    assert saves(epochs=1) == [0, 3, 6]


def test_a_beginning_that_is_large_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "SMALL", 100)
    seen, folder = [], new_folder(tmp_path)

    def look(trainer):
        seen.append(sorted(f.name for f in (folder.path / "checkpoints").glob("*")))

    trainer_of(epochs=1).fit(folder=folder, callbacks=[At(1, look)])
    assert seen == [[]]
    assert (folder.path / "checkpoints" / "last.pt").exists()


def test_there_is_something_to_do_only_when_it_is_time():
    trainer = trainer_of(checkpoints={"every_steps": 3})
    trainer.saving.start_clock()
    trainer.saving._next_housekeeping += 1000
    assert [trainer.saving.is_due(step) for step in (1, 2, 3, 4)] == [False, False, True, False]
    trainer.signals.save = True
    assert trainer.saving.is_due(1)
    trainer.signals.save = False
    trainer.saving._next_housekeeping = 0.0
    assert trainer.saving.is_due(1)
