import math
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from zoo.training.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    InverseSquareRoot,
    Linear,
    OneCycle,
    ReduceOnPlateau,
    Step,
)

STEPS, PER_EPOCH = 60, 6


def ours(schedule, steps=STEPS, total=STEPS, per_epoch=PER_EPOCH):
    schedule.bind(total_steps=total, steps_per_epoch=per_epoch)
    return [schedule(step) for step in range(steps)]


def torchs(make, steps=STEPS, every=1):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a deprecated argument that torch uses itself
                scheduler.step()
    return rates


@pytest.mark.parity
def test_step_equals_multi_step_lr_of_torch():
    expected = torchs(lambda o: lr_scheduler.MultiStepLR(o, [3, 7, 9], gamma=0.2), every=PER_EPOCH)
    assert ours(Step(milestones=[3, 7, 9], gamma=0.2)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parity
def test_step_at_equal_distances_equals_step_lr_of_torch():
    expected = torchs(lambda o: lr_scheduler.StepLR(o, 4, gamma=0.5), every=PER_EPOCH)
    assert ours(Step(milestones=[4, 8], gamma=0.5)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parity
def test_exponential_equals_exponential_lr_of_torch():
    expected = torchs(lambda o: lr_scheduler.ExponentialLR(o, 0.9), every=PER_EPOCH)
    assert ours(Exponential(gamma=0.9)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_equals_cosine_annealing_lr_of_torch(final):
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=final))
    assert ours(Cosine(final=final)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parity
@pytest.mark.parametrize(("period", "multiplier", "final"), [(2, 1, 0.0), (1, 2, 0.1), (0.5, 3, 0)])
def test_cosine_with_restarts_equals_that_of_torch(period, multiplier, final):
    steps = round(period * PER_EPOCH)
    expected = torchs(
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, steps, multiplier, eta_min=final)
    )
    found = ours(CosineRestarts(period=period, multiplier=multiplier, final=final))
    assert found == pytest.approx(expected, rel=1e-9)
    assert found.count(1.0) == {1: 5, 2: 4, 3: 4}[multiplier]


@pytest.mark.parity
def test_linear_equals_linear_lr_of_torch():
    expected = torchs(
        lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.25, total_iters=STEPS)
    )
    assert ours(Linear(final=0.25)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parity
@pytest.mark.parametrize("steps", [10, 37, STEPS])
def test_one_cycle_equals_one_cycle_lr_of_torch(steps):
    def make(optimizer):
        return lr_scheduler.OneCycleLR(
            optimizer, 1.0, steps, pct_start=0.3, div_factor=25, final_div_factor=1e4
        )

    found = ours(OneCycle(rise=0.3, start=1 / 25, final=1 / 25 / 1e4), steps, steps)
    assert found == pytest.approx(torchs(make, steps), rel=1e-9, abs=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("min_delta", [0.0, 0.3])
def test_reduce_on_plateau_equals_that_of_torch(mode, min_delta):
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(80, generator=generator).tolist()
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode,
        factor=0.5,
        patience=2,
        threshold=min_delta,
        threshold_mode="abs",
        min_lr=0.01,
        eps=0.0,
    )
    schedule = ReduceOnPlateau(gamma=0.5, patience=2, min_delta=min_delta, final=0.01)
    for step, value in enumerate(values):
        theirs.step(value)
        schedule.observe(value, mode)
        assert schedule(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert schedule(0) == 0.01  # so the floor has been reached


def test_reduce_on_plateau_takes_nan_for_no_improvement_even_at_first():
    schedule = ReduceOnPlateau(gamma=0.5, patience=0)
    schedule.observe(math.nan, "min")
    assert schedule(0) == 0.5
    schedule.observe(3.0, "min")
    assert (schedule.best, schedule(0)) == (3.0, 0.5)


def test_reduce_on_plateau_goes_on_from_its_state_as_if_never_stopped():
    values = [3.0, 2.0, 2.5, 2.6, 2.7, 1.0, 1.1, 1.2, 1.3, 0.9]
    whole = ReduceOnPlateau(gamma=0.5, patience=1)
    for value in values:
        whole.observe(value, "min")
    for stop in range(len(values)):
        first, second = (ReduceOnPlateau(gamma=0.5, patience=1) for _ in range(2))
        for value in values[:stop]:
            first.observe(value, "min")
        second.load_state_dict(first.state_dict())
        for value in values[stop:]:
            second.observe(value, "min")
        assert second.state_dict() == whole.state_dict()


def test_inverse_square_root_is_the_formula_of_attention_is_all_you_need():
    d_model, warmup = 512, 16
    peak = (d_model * warmup) ** -0.5
    found = ours(InverseSquareRoot(warmup_steps=warmup))
    for step, factor in enumerate(found, start=1):
        paper = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert factor * peak == pytest.approx(paper, rel=1e-12)
    assert max(found) == found[warmup - 1] == 1.0


def test_constant_is_one():
    assert ours(Constant()) == [1.0] * STEPS


def test_warm_up_rises_linearly_to_one_and_the_schedule_begins_there():
    for schedule in (Constant, Cosine, Linear, Exponential, ReduceOnPlateau):
        factors = ours(schedule(warmup_steps=4))
        assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


@pytest.mark.parity
def test_cosine_after_warm_up_is_that_of_the_rest_of_the_run():
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS - 5), STEPS - 5)
    assert ours(Cosine(warmup_steps=5))[5:] == pytest.approx(expected, rel=1e-9)


def test_milestones_may_be_fractions_of_an_epoch_and_count_after_the_warm_up():
    factors = ours(Step(milestones=[0.5], warmup_steps=2))
    assert factors[2:5] == [1.0] * 3
    assert factors[5:] == pytest.approx([0.1] * (STEPS - 5))


def test_the_rate_falls_at_the_first_step_that_has_reached_the_milestone_as_it_is_written():
    for per_epoch in range(1, 200):
        schedule = Step(milestones=[hundredths / 100 for hundredths in range(1, 200)])
        schedule.bind(total_steps=2 * per_epoch, steps_per_epoch=per_epoch)
        fallen = 0
        for step in range(2 * per_epoch):
            while fallen < 199 and 100 * step >= (fallen + 1) * per_epoch:  # in whole numbers
                fallen += 1
            assert schedule(step) == 0.1**fallen, (step, per_epoch)


@pytest.mark.parametrize("schedule", [Cosine(final=0.1), Linear(final=0.1)])
def test_the_end_of_the_run_has_the_final_factor_and_it_stays(schedule):
    factors = ours(schedule, steps=STEPS + 3)
    assert factors[STEPS:] == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("kind", [Constant, Cosine, InverseSquareRoot, OneCycle])
def test_a_run_that_ends_in_its_warm_up_rises_all_the_way_and_warns(kind):
    with pytest.warns(UserWarning, match=r"schedule\.warmup_steps=10: the run ends after 3 steps"):
        rates = ours(kind(warmup_steps=10), steps=3, total=3)
    assert rates == sorted(rates) and rates[-1] < 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours(kind(warmup_steps=10), steps=3, total=11)
        ours(Constant(), steps=3, total=3)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Constant(warmup_steps=-1), "warmup_steps"),
        (lambda: Step(milestones=[0]), "milestones"),
        (lambda: Step(milestones=[3, 2]), "milestones"),
        (lambda: Step(milestones=[3], gamma=0.0), "gamma"),
        (lambda: Step(milestones=[3], gamma=1.5), "gamma"),
        (lambda: Exponential(gamma=0.0), "gamma"),
        (lambda: Exponential(gamma=1.1), "gamma"),
        (lambda: Cosine(final=-0.1), "final"),
        (lambda: Cosine(final=1.1), "final"),
        (lambda: Linear(final=2.0), "final"),
        (lambda: InverseSquareRoot(warmup_steps=0), "warmup_steps"),
        (lambda: OneCycle(rise=0.0), "rise"),
        (lambda: OneCycle(rise=1.0), "rise"),
        (lambda: OneCycle(start=0.0), "start"),
        (lambda: OneCycle(final=-1.0), "final"),
        (lambda: ReduceOnPlateau(gamma=1.0), "gamma"),
        (lambda: ReduceOnPlateau(patience=-1), "patience"),
        (lambda: ReduceOnPlateau(min_delta=-1.0), "min_delta"),
        (lambda: ReduceOnPlateau(final=1.5), "final"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(make, word):
    with pytest.raises(ValueError, match=rf"^{word} must .*not "):
        make()


def test_four_percent_every_eight_epochs_are_a_third_after_eighty():
    steps = ours(Step(milestones=range(8, 81, 8), gamma=0.96), steps=81, total=100, per_epoch=1)
    assert 0.01 * steps[80] == pytest.approx(0.006648, abs=5e-7)
    assert [0.01 * steps[step] for step in (7, 8)] == pytest.approx([0.01, 0.0096])
