import math
import shutil

import pytest
import torch
from torch import nn

from tests.training.tiny import (
    build,
    differences,
    new_folder,
    trainer_of,
    without_timings,
)
from zoo.training.callbacks import MetricsFile
from zoo.training.checkpoints.checkpoint import CheckpointError, read, write
from zoo.training.run_folder import RunFolder
from zoo.training.state import Position


def test_resuming_without_a_folder_is_refused():
    with pytest.raises(ValueError, match="resume needs a folder"):
        trainer_of().fit(resume=True)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    folder = new_folder(tmp_path)
    trainer_of(epochs=1).fit(folder=folder)
    other = nn.Sequential(nn.Linear(6, 3))
    with pytest.raises(CheckpointError, match="belongs to another model"):
        trainer_of(other, epochs=2).fit(folder=folder, resume=True)


def test_a_state_restored_at_once_is_the_state_that_was_saved():
    for kind in ("classification", "adversarial", "average", "plateau"):
        trainer, _ = build(kind)
        trainer.plan.total_steps = 5
        trainer.fit()
        state = trainer.state_dict()
        other, _ = build(kind)
        other.load_state_dict(state)
        assert differences(without_timings(other.state_dict()), without_timings(state)) == []


def test_a_position_is_saved_by_the_names_of_its_fields():
    trainer = trainer_of(epochs=1)
    trainer.fit()
    state = trainer.state_dict()["position"]
    assert {k: v for k, v in state.items() if k != "seconds"} == {
        "epoch": 1,
        "batch": 0,
        "step": 6,
        "updates": 6,
        "evaluated_at": 6,
    }
    assert Position(**state) == trainer.position


def test_what_a_process_has_of_its_own_is_apart():
    state = trainer_of().state_dict()
    (own,) = state["ranks"]
    assert set(own) == {"task", "curve", "random"}
    assert not set(own) & set(state)


def test_one_process_goes_on_with_what_the_first_of_several_had():
    trainer = trainer_of(epochs=1)
    trainer.fit()
    state, other = trainer.state_dict(), trainer_of(epochs=1)
    other.load_state_dict({**state, "ranks": state["ranks"] * 3})
    assert not differences(other.state_dict(), state)


def test_losses_that_an_old_checkpoint_had_not_summed_are_in_the_curve(tmp_path):
    # What version 0.1.0 wrote: one part, and pairs of loss and count beside the sums.
    state = trainer_of(log_every=50).state_dict()
    (own,) = state.pop("ranks")
    own["curve"] = {
        "sums": {"model": torch.tensor(3.0)},
        "counts": {"model": 2.0},
        "pending": {"model": [(torch.tensor(0.5), 4), (torch.tensor(2.0), torch.tensor(2))]},
        "items": 7.0,
    }
    torch.save({"format": 1, **state, **own, "ranking": []}, tmp_path / "old.pt")
    trainer = trainer_of(log_every=50)
    trainer.load_state_dict(read(tmp_path / "old.pt"))
    line = trainer.curve.read({"model": {"": 0.1}}, {}, {})
    assert line["loss"] == (3.0 + 0.5 * 4 + 2.0 * 2) / (2 + 4 + 2)
    assert trainer.curve.items == 7.0 + 8


WRONG = [
    (("position", "step"), "7"),
    (("position", "step"), -5),
    (("position", "batch"), True),
    (("position", "epoch"), 0.5),
    (("position", "seconds"), math.nan),
    (("position", "stop"), 3),
    (("position", "__class__"), 3),
    (("position",), None),
    (("position",), {}),
    (("model",), [1]),
    (("model", "0.weight"), None),
    (("optimizers",), {}),
    (("optimizers", "model", "state"), 7),
    (("optimizers", "model", "param_groups"), [{}]),
    (("callbacks",), None),
    (("callbacks", "MetricsFile"), {"bytes": "7"}),
    (("callbacks", "MetricsFile"), {"bytes": math.nan}),
    (("metrics",), {"loss": "small"}),
    (("metrics",), 3),
    (("ranks",), []),
    (("ranks",), None),
    (("ranks",), [{}]),
    (("ranking",), None),
    (("ranking",), [[1.0, 2]]),
    (("ranking",), [[1.0, 6, "../../precious.pt"]]),
    (("ranking",), [[1.0, 6, "/precious.pt"]]),
    (("ranking",), [["1.0", 6, "best.pt"]]),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = new_folder(tmp_path_factory.mktemp("finished"))
    trainer_of(epochs=1).fit(folder=folder, callbacks=[MetricsFile(folder.path)])
    return folder.path


@pytest.mark.parametrize(("where", "value"), WRONG, ids=str)
def test_a_whole_checkpoint_with_wrong_content_is_refused_in_one_line(
    where, value, finished, tmp_path
):
    path = tmp_path / "runs" / "run"
    shutil.copytree(finished, path)
    precious = tmp_path / "precious.pt"
    precious.write_text("precious")
    state = read(path / "checkpoints" / "last.pt")
    node = state
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = value
    for name in ("last.pt", "previous.pt"):
        write(path / "checkpoints" / name, state)
    trainer = trainer_of(epochs=2)
    with pytest.raises(CheckpointError) as caught:
        trainer.fit(folder=RunFolder(path), callbacks=[MetricsFile(path)], resume=True)
    assert "\n" not in str(caught.value)
    assert not hasattr(trainer.position, "stop")
    assert precious.read_text() == "precious"


def test_a_best_checkpoint_with_wrong_content_is_refused_in_one_line(finished, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    best = path / "checkpoints" / "best.pt"
    write(best, read(best) | {"metrics": 7, "model": {}})
    with pytest.raises(CheckpointError, match=r"best\.pt does not hold what this run saves"):
        trainer_of(epochs=1).fit(folder=RunFolder(path), resume=True)
