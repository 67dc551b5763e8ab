from itertools import pairwise

import pytest
import torch

import train
from tests.training.tiny import (
    At,
    Rows,
    differences,
    mlp,
    new_folder,
    trainer_of,
    weights,
    without_timings,
)
from zoo.training.callback import Callback
from zoo.training.schedules import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    ReduceOnPlateau,
    make_schedule,
)
from zoo.training.tensorboard import chart

HEAD = {"groups": {"classifier.*": {"lr": 0.02}}}


def headed(own, base=Cosine, **options):
    """A trainer of 2 epochs of 6 steps whose output layer has a schedule of its own."""
    schedule = make_schedule(base, groups={"classifier.*": own})
    return trainer_of(mlp(), optimizer=HEAD, schedule=schedule, **options)


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_step_end(self, trainer):
        groups = trainer.optimizers["model"].param_groups
        self.seen.append({group.get("name"): group["lr"] for group in groups})


def test_a_group_follows_its_own_schedule_from_its_own_rate_and_the_rest_follow_the_other():
    rates = Rates()
    headed(Exponential(gamma=0.5)).fit(callbacks=[rates])
    cosine = Cosine()
    cosine.bind(total_steps=12, steps_per_epoch=6)
    expected = [{None: 0.01 * cosine(t), "classifier.*": 0.02 * 0.5 ** (t // 6)} for t in range(12)]
    assert rates.seen == expected


def test_a_group_whose_rate_has_fallen_to_zero_no_longer_moves():
    trainer, seen = headed(Linear(fall_epochs=1), base=Constant), []
    layer = trainer.task.model.classifier
    keep = [At(step, lambda _: seen.append(weights(layer))) for step in range(1, 13)]
    trainer.fit(callbacks=keep)
    moved = [not torch.equal(one, other) for one, other in pairwise(seen)]
    assert moved == [True] * 5 + [False] * 6


def test_a_fall_of_some_epochs_is_that_of_a_run_as_long_and_stays_at_its_end():
    for kind in (Cosine, Linear):
        part, whole = kind(fall_epochs=2.5, final=0.1, warmup_steps=3), kind(final=0.1)
        part.bind(total_steps=60, steps_per_epoch=6)
        whole.bind(total_steps=15, steps_per_epoch=6)
        assert [part(step) for step in range(3, 60)] == [whole(step) for step in range(57)]


def test_the_curve_shows_the_rate_of_each_group():
    rows = Rows()
    headed(Constant()).fit(callbacks=[rows])
    found = rows.of("train")
    assert {row["lr/classifier.*"] for row in found} == {0.02}
    assert found[0]["lr"] == 0.01 > found[-1]["lr"]
    names = "lr/classifier.*", "critic_lr/my_part.*", "lr", "critic_lr"
    assert [chart(name) for name in names] == [f"optimizer/{name}" for name in names]


@pytest.mark.parametrize("stop_at", [3, 6, 9])
def test_a_run_with_a_plateau_for_a_group_goes_on_bit_for_bit(stop_at, tmp_path):
    def run(folder, *callbacks, resume=False):
        plateau = ReduceOnPlateau(gamma=0.5, patience=0, min_delta=1.0)  # falls at each evaluation
        trainer = headed(plateau, evaluate_every=2, checkpoints={"monitor": "loss"})
        trainer.fit(folder=folder, callbacks=callbacks, resume=resume)
        return trainer

    whole = run(new_folder(tmp_path / "whole"))
    parts = new_folder(tmp_path / "parts")

    def stop(trainer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(parts, At(stop_at, stop))
    resumed = run(parts, resume=True)
    state = without_timings(whole.state_dict())
    assert differences(without_timings(resumed.state_dict()), state) == []
    assert state["schedule"]["groups"]["classifier.*"]["scale"] < 0.1


def test_a_schedule_of_a_group_that_the_optimizer_does_not_have_is_refused():
    schedule = make_schedule(Cosine, groups={"head": Constant()})
    message = r"schedule\.groups: the optimizer has no group 'head', only 'classifier\.\*'; make it"
    with pytest.raises(ValueError, match=message):
        trainer_of(mlp(), optimizer=HEAD, schedule=schedule)


WORDS = (
    *("model=mlp", "data=digits", "data.image_size=8", "trainer.steps=3", "trainer.log_every=1"),
    *("trainer.device=cpu", "trainer.limit_eval_batches=1", "logger.graph=false"),
    "optimizer.groups={classifier.*: {}}",
)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            "{head: {_target_: zoo.training.schedules.Constant}}",
            "the optimizer has no group 'head'",
        ),
        ("{classifier.*: {_target_: zoo.training.schedules.Step}}", "milestones is required by"),
        ("{classifier.*: {_target_: zoo.training.schedules.Linear, end: 3}}", "no such argument"),
        ("{classifier.*: {_target_: torch.optim.Adam}}", "Adam"),
        ("{classifier.*: {final: 0.1}}", "must be a Schedule (a mapping with _target_)"),
        (
            "{classifier.*: {_target_: zoo.training.schedules.Linear, fall_epochs: 0}}",
            "fall_epochs must be",
        ),
    ],
)
def test_wrong_schedules_of_groups_are_refused_by_key(groups, message, tmp_path, capsys):
    words = (*WORDS, f"paths.runs_dir={tmp_path}", f"schedule.groups={groups}")
    assert train.main(list(words)) == 2
    err = capsys.readouterr().err
    assert message in err and "schedule" in err and not list(tmp_path.iterdir())


def test_a_group_has_its_schedule_from_the_command_line(tmp_path, capsys):
    groups = "{classifier.*: {_target_: zoo.training.schedules.Constant, warmup_steps: 1}}"
    assert train.main([*WORDS, f"paths.runs_dir={tmp_path}", f"schedule.groups={groups}"]) == 0
    (metrics,) = tmp_path.glob("*/*/metrics.jsonl")
    assert metrics.read_text().count('"lr/classifier.*": 0.001') == 2
