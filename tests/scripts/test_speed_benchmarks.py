"""Both sides of the benchmarks of speed do the same."""

import sys

import pytest
import torch
from torch import nn

from benchmarks import checkpoints, lightning_loops, optimizers


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 1000))


def test_clipped_steps_of_ours_and_of_torchs_defaults_lead_to_the_same_weights():
    assert optimizers.disagreement(small, 3) is None


def test_a_side_that_does_not_clip_is_found_out(monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    assert optimizers.disagreement(small, 3) is not None


def test_what_a_loop_by_hand_saves_is_what_the_trainer_has(tmp_path):
    trainer = checkpoints.trainer_of(small, steps=4)
    clock = checkpoints._Clock()
    trainer.fit(callbacks=[clock, checkpoints._PlainSaves(tmp_path / "plain.pt", 2)])
    saved = torch.load(tmp_path / "plain.pt", weights_only=True)
    assert len(clock.ends) == 4
    for name, value in trainer.task.model.state_dict().items():
        assert torch.equal(saved["model"][name], value)
    assert len(saved["optimizer"]["state"]) == len(list(trainer.task.model.parameters()))


def test_what_saves_add_is_told_from_the_steps_themselves():
    ends, now = [], 0.0
    for step in range(1, 24):
        ends.append(now)
        now += 1.0 + (5.0 if step in (10, 20) else 0.0) + (0.5 if step in (11, 21) else 0.0)
    assert checkpoints.added(ends, 10, 3) == pytest.approx(11.0)


@pytest.mark.parametrize("name", lightning_loops.CASES)
def test_trainer_and_lightning_learn_the_same(name):
    pytest.importorskip("lightning", reason="needs the extra `benchmark`")
    assert lightning_loops.disagreement(lightning_loops.CASES[name]._replace(steps=5)) is None


def test_without_lightning_its_benchmarks_are_skipped_with_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(lightning_loops.Skipped, match=r"pip install -e \.\[benchmark\]"):
        lightning_loops.lightning(1)
