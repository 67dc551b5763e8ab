import signal

import pytest
import torch

from tests.training.tiny import (
    KINDS,
    At,
    build,
    differences,
    fit,
    new_folder,
    read_results,
    read_rows,
    without_timings,
)
from zoo.training.checkpoints.checkpoint import read
from zoo.training.interruption import Interrupted
from zoo.training.plan import Plan

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")


def outcome(folder):
    """Everything that a run leaves behind, without timings."""
    files = sorted(f.name for f in (folder.path / "checkpoints").iterdir() if f.suffix == ".pt")
    states = {
        name: without_timings(read(folder.path / "checkpoints" / name))
        for name in files
        if name != "previous.pt"
    }
    return {
        "checkpoints": states,
        "rows": read_rows(folder.path),
        "results": read_results(folder.path),
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Outcome, weights and number of steps of each kind of run that nothing stopped."""
    found = {}

    def of(kind):
        if kind not in found:
            folder = new_folder(tmp_path_factory.mktemp(kind))
            trainer, callbacks = build(kind)
            fit(trainer, folder, callbacks)
            found[kind] = outcome(folder), trainer.task.model.state_dict(), trainer.step
        return found[kind]

    return of


def stop(trainer):
    trainer.signals.stop = signal.SIGTERM


def resume(kind, folder):
    # Another process has other random states.
    torch.manual_seed(99)
    trainer, callbacks = build(kind)
    torch.manual_seed(98)
    fit(trainer, folder, callbacks, resume=True)
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_at_any_step_and_resumed_equals_one_never_stopped(
    kind, uninterrupted, tmp_path
):
    expected, weights, steps = uninterrupted(kind)
    assert steps >= 6
    for step in range(1, steps + 1):
        folder = new_folder(tmp_path)
        trainer, callbacks = build(kind)
        with pytest.raises(Interrupted):
            fit(trainer, folder, [*callbacks, At(step, stop)])
        assert trainer.step == step  # it stops at the next boundary, and no later
        trainer = resume(kind, folder)
        assert differences(outcome(folder), expected) == [], f"stopped at step {step}"
        assert differences(dict(trainer.task.model.state_dict()), dict(weights)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_at_every_single_step_equals_one_never_stopped(kind, uninterrupted, tmp_path):
    expected, _, steps = uninterrupted(kind)
    folder = new_folder(tmp_path)
    for step in range(1, steps + 1):
        trainer, callbacks = build(kind)
        with pytest.raises(Interrupted):
            fit(trainer, folder, [*callbacks, At(step, stop)], resume=step > 1)
    resume(kind, folder)
    assert differences(outcome(folder), expected) == []


@pytest.mark.parametrize("kind", ["classification", "language_modeling", "average", "plateau"])
def test_a_run_stopped_in_the_middle_of_an_evaluation_repeats_it_as_a_whole(
    kind, uninterrupted, tmp_path
):
    expected, _, _ = uninterrupted(kind)
    batch, stopped = 0, True
    while stopped:
        folder = new_folder(tmp_path)
        trainer, callbacks = build(kind)
        evaluate, calls = trainer.task.evaluate, []

        def counting(batch_, trainer=trainer, evaluate=evaluate, calls=calls, at=batch):
            calls.append(batch_)
            if len(calls) == at + 1:
                stop(trainer)
            evaluate(batch_)

        trainer.task.evaluate = counting
        try:
            fit(trainer, folder, callbacks)
            stopped = trainer.signals.stop is not None
        except Interrupted:
            pass
        # After the last batch of the last evaluation there is nothing left to be stopped.
        if folder.read_status()["state"] == "interrupted":
            assert not (folder.path / "results.json").exists()
            resume(kind, folder)
        assert differences(outcome(folder), expected) == [], f"stopped in evaluation {batch}"
        batch += 2
    assert batch > 8


@pytest.mark.parametrize("kind", ["classification", "adversarial", "plateau"])
def test_a_finished_run_that_is_resumed_ends_as_it_was(kind, uninterrupted, tmp_path):
    expected, _, _ = uninterrupted(kind)
    folder = new_folder(tmp_path)
    trainer, callbacks = build(kind)
    fit(trainer, folder, callbacks)
    resume(kind, folder)
    assert differences(outcome(folder), expected) == []


@pytest.mark.parametrize("kind", ["average", "language_modeling"])
def test_an_extended_run_equals_one_that_was_to_be_that_long(kind, tmp_path):
    # With a constant rate: the end of a run is part of any other schedule.
    def run(folder, epochs, resume=False):
        trainer, callbacks = build(kind)
        trainer.settings.epochs, trainer.schedule.factor = epochs, lambda step, total: 1.0
        trainer.plan = Plan(trainer.settings, trainer.data)
        trainer.schedule.bind(
            total_steps=trainer.total_steps, steps_per_epoch=trainer.plan.steps_per_epoch
        )
        fit(trainer, folder, callbacks, resume=resume)

    whole, parts = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    run(whole, 4)
    run(parts, 2)
    run(parts, 4, resume=True)
    ends = [outcome(folder) for folder in (whole, parts)]
    for end in ends:  # a line of the curve ends where the first part ended
        end["rows"] = [row for row in end["rows"] if row["split"] != "train"]
        for state in end["checkpoints"].values():
            del state["ranks"][0]["curve"]
    assert differences(*ends) == []
