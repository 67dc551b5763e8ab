"""Learning rate schedules: pure functions of the number of optimizer steps taken.

A schedule gives a factor of the optimizer's own learning rate. It is a function of the step alone,
so that a resumed run needs no state for it and a step that fp16 scaling skipped does not count.
Only
`ReduceOnPlateau`, which answers to a metric, carries state.

Some parameters may follow a schedule of their own: `groups` gives one to a group of the optimizer
by its name, which is the pattern that makes it in `optimizer.groups`.

Each takes a warm-up: the factor rises linearly from `1 / (warmup_steps + 1)` at step 0 to 1 at step
`warmup_steps`, where the schedule proper begins (Goyal et al., 2017,
https://arxiv.org/abs/1706.02677). `InverseSquareRoot` and `OneCycle` bring their own rise.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal, TypedDict


class Schedule:
    """Factor of the learning rate as a function of the step.

    Args:
        warmup_steps: optimizer steps of linear warm-up.

    Attributes:
        groups: other schedules for some groups of the optimizer, by the group's name.

    Raises:
        ValueError: a value is out of its range.
    """

    groups: Mapping[str, "Schedule"] = MappingProxyType({})

    def __init__(self, *, warmup_steps: int = 0) -> None:
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0, not {warmup_steps}")
        self.warmup_steps = warmup_steps
        self.total_steps = 0
        self.steps_per_epoch: int | Fraction = 0

    def bind(self, *, total_steps: int, steps_per_epoch: int | Fraction) -> None:
        """Tells the schedule how long the run is, in optimizer steps; the trainer calls it.

        Args:
            total_steps: steps of the run.
            steps_per_epoch: a fraction for an optimizer that does not take every step.
        """
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        if self.warmup_steps >= total_steps:
            warnings.warn(
                f"schedule.warmup_steps={self.warmup_steps}: the run ends after {total_steps} "
                "steps, before the learning rate has reached its own value; choose fewer",
                stacklevel=2,
            )

    def __call__(self, step: int) -> float:
        """The factor for the update that follows `step` updates."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        return self.factor(step - self.warmup_steps, max(1, self.total_steps - self.warmup_steps))

    def factor(self, step: int, total: int) -> float:
        """The factor after `step` of `total` steps, warm-up not counted."""
        raise NotImplementedError

    def observe(self, value: float, mode: Literal["min", "max"]) -> None:
        """Takes note of the monitored validation metric, after each evaluation."""

    def state_dict(self) -> dict[str, Any]:
        """What the schedule carries between steps."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""


class ScheduleOptions(TypedDict, total=False):
    """What a configuration may say of any schedule, besides the arguments of its class."""

    groups: dict[str, Schedule]


def make_schedule(
    kind: Callable[..., Schedule],
    *,
    groups: Mapping[str, Schedule] | None = None,
    **arguments: Any,
) -> Schedule:
    """A schedule, and those of the groups that have their own.

    Args:
        kind: a schedule class.
        groups: by the name of the optimizer's group.
        arguments: of the class.

    Raises:
        ValueError: a value is out of its range.
    """
    schedule = kind(**arguments)
    schedule.groups = dict(groups or {})
    return schedule


class Constant(Schedule):
    """The optimizer's own rate throughout."""

    def factor(self, step: int, total: int) -> float:
        return 1.0


class Step(Schedule):
    r"""Falls by a factor at given epochs: :math:`\gamma^{\#\{m \le epoch\}}`.

    Args:
        milestones: epochs (fractions allowed) at which the rate falls, counted after the warm-up.
        gamma: the factor.
        warmup_steps: see `Schedule`.
    """

    def __init__(
        self, *, milestones: Sequence[float], gamma: float = 0.1, warmup_steps: int = 0
    ) -> None:
        super().__init__(warmup_steps=warmup_steps)
        if any(m <= 0 for m in milestones) or list(milestones) != sorted(milestones):
            raise ValueError(f"milestones must be rising epochs above 0, not {list(milestones)}")
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1], not {gamma}")
        self.milestones = tuple(milestones)
        self.gamma = gamma
        self._falls: list[int] = []

    def bind(self, *, total_steps: int, steps_per_epoch: int | Fraction) -> None:
        super().bind(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        # As the numbers are written: in binary, 0.28 of 25 steps is a little more than 7.
        epochs = [Fraction(str(milestone)) for milestone in self.milestones]
        self._falls = [math.ceil(epoch * steps_per_epoch) for epoch in epochs]

    def factor(self, step: int, total: int) -> float:
        return self.gamma ** sum(step >= fall for fall in self._falls)


class Exponential(Schedule):
    r"""Falls by a factor every epoch: :math:`\gamma^{\lfloor epoch \rfloor}`.

    Args:
        gamma: the factor.
        warmup_steps: see `Schedule`.
    """

    def __init__(self, *, gamma: float = 0.95, warmup_steps: int = 0) -> None:
        super().__init__(warmup_steps=warmup_steps)
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1], not {gamma}")
        self.gamma = gamma

    def factor(self, step: int, total: int) -> float:
        return self.gamma ** (step // self.steps_per_epoch)


class Falling(Schedule):
    """What falls over the whole run or its beginning, in a shape that the subclass gives.

    Args:
        final: the factor at the end of the fall.
        fall_epochs: how long it falls (fractions allowed), counted after the warm-up; None: to the
            end of the run. From there on the factor stays.
        warmup_steps: see `Schedule`.
    """

    def __init__(
        self, *, final: float = 0.0, fall_epochs: float | None = None, warmup_steps: int = 0
    ) -> None:
        super().__init__(warmup_steps=warmup_steps)
        if not 0 <= final <= 1:
            raise ValueError(f"final must be in [0, 1], not {final}")
        if fall_epochs is not None and fall_epochs <= 0:
            raise ValueError(f"fall_epochs must be greater than 0 or null, not {fall_epochs}")
        self.final, self.fall_epochs = final, fall_epochs

    def factor(self, step: int, total: int) -> float:
        if self.fall_epochs is not None:
            total = math.ceil(Fraction(str(self.fall_epochs)) * self.steps_per_epoch)
        return self.final + (1 - self.final) * self.remaining(min(step / total, 1.0))

    def remaining(self, share: float) -> float:
        """What is left of the fall, from 1 to 0, after a share of the run."""
        raise NotImplementedError


class Cosine(Falling):
    r"""Falls along half a cosine: :math:`f + (1 - f)(1 + \cos(\pi t / T)) / 2`.

    Here :math:`f` is `final`. Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983
    (without restarts).
    """

    def remaining(self, share: float) -> float:
        return (1 + math.cos(math.pi * share)) / 2


class CosineRestarts(Schedule):
    r"""Falls along half a cosine again and again: :math:`f + (1 - f)(1 + \cos(\pi t / T_i)) / 2`.

    Here :math:`f` is `final`, :math:`t` counts the steps since the last restart, and the period
    :math:`T_i` is `multiplier` times the one before. Loshchilov and Hutter, 2017,
    https://arxiv.org/abs/1608.03983 (SGDR). The weights at the end of each period are as good as
    those of a run of their own, and together an ensemble (Huang et al., 2017,
    https://arxiv.org/abs/1704.00109): `callbacks.checkpoint.keep_every` keeps them.

    Args:
        period: epochs (fractions allowed) until the first restart.
        multiplier: by which each period is longer than the one before.
        final: the factor at the end of a period.
        warmup_steps: see `Schedule`.
    """

    def __init__(
        self,
        *,
        period: float = 10.0,
        multiplier: int = 1,
        final: float = 0.0,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(warmup_steps=warmup_steps)
        if period <= 0:
            raise ValueError(f"period must be greater than 0, not {period}")
        if multiplier < 1:
            raise ValueError(f"multiplier must be at least 1, not {multiplier}")
        if not 0 <= final <= 1:
            raise ValueError(f"final must be in [0, 1], not {final}")
        self.period, self.multiplier, self.final = period, multiplier, final
        self._first = 1

    def bind(self, *, total_steps: int, steps_per_epoch: int | Fraction) -> None:
        super().bind(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        self._first = math.ceil(Fraction(str(self.period)) * steps_per_epoch)

    def factor(self, step: int, total: int) -> float:
        length = self._first
        if self.multiplier == 1:
            step %= length
        while step >= length:
            step, length = step - length, length * self.multiplier
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * step / length)) / 2


class Linear(Falling):
    r"""Falls in a straight line: :math:`f + (1 - f)(1 - t / T)`, :math:`f` is `final`."""

    def remaining(self, share: float) -> float:
        return 1 - share


class InverseSquareRoot(Schedule):
    r"""Rises linearly, then falls with the root of the step: :math:`\min(s / w, \sqrt{w / s})`.

    Vaswani et al., 2017, section 5.3, https://arxiv.org/abs/1706.03762 ("Noam"), where the peak, at
    :math:`s = w`, is :math:`(d\,w)^{-1/2}` for a model of width :math:`d`; here it is the
    optimizer's rate.

    Args:
        warmup_steps: :math:`w`.
    """

    def __init__(self, *, warmup_steps: int = 4000) -> None:
        super().__init__(warmup_steps=warmup_steps)
        if warmup_steps < 1:
            raise ValueError(f"warmup_steps must be at least 1, not {warmup_steps}")

    def __call__(self, step: int) -> float:
        count = step + 1
        return min(count / self.warmup_steps, math.sqrt(self.warmup_steps / count))


class OneCycle(Schedule):
    r"""Rises to the optimizer's rate and falls far below where it began, both along a cosine.

    Smith and Topin, 2018, https://arxiv.org/abs/1708.07120, in the form of
    `torch.optim.lr_scheduler.OneCycleLR` with two phases. Only the rate is cycled; the momentum
    stays.

    Args:
        rise: share of the run in which the rate rises.
        start: factor at the first step.
        final: factor at the last step.
        warmup_steps: see `Schedule`; seldom needed here.
    """

    def __init__(
        self,
        *,
        rise: float = 0.3,
        start: float = 0.04,
        final: float = 0.000004,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(warmup_steps=warmup_steps)
        if not 0 < rise < 1:
            raise ValueError(f"rise must be in (0, 1), not {rise}")
        if not 0 < start <= 1:
            raise ValueError(f"start must be in (0, 1], not {start}")
        if not 0 <= final <= 1:
            raise ValueError(f"final must be in [0, 1], not {final}")
        self.rise, self.start, self.final = rise, start, final

    def factor(self, step: int, total: int) -> float:
        peak = self.rise * total - 1
        step = min(step, total - 1)
        if step <= peak:
            low, high, share = self.start, 1.0, step / peak if peak > 0 else 1.0
        else:
            low, high, share = 1.0, self.final, (step - peak) / max(total - 1 - peak, 1e-9)
        return high + (low - high) * (1 + math.cos(math.pi * share)) / 2


class ReduceOnPlateau(Schedule):
    """Falls when the monitored validation metric has stopped improving.

    Args:
        gamma: the factor by which the rate falls.
        patience: evaluations without improvement to wait for.
        min_delta: least change that counts as an improvement, in the metric's own unit.
        final: the factor below which the rate does not fall.
        warmup_steps: see `Schedule`.
    """

    def __init__(
        self,
        *,
        gamma: float = 0.1,
        patience: int = 10,
        min_delta: float = 0.0,
        final: float = 0.0,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(warmup_steps=warmup_steps)
        if not 0 < gamma < 1:
            raise ValueError(f"gamma must be in (0, 1), not {gamma}")
        if patience < 0:
            raise ValueError(f"patience must be at least 0, not {patience}")
        if min_delta < 0:
            raise ValueError(f"min_delta must be at least 0, not {min_delta}")
        if not 0 <= final <= 1:
            raise ValueError(f"final must be in [0, 1], not {final}")
        self.gamma, self.patience, self.min_delta, self.final = gamma, patience, min_delta, final
        self.best: float | None = None
        self.waited = 0
        self.scale = 1.0

    def factor(self, step: int, total: int) -> float:
        return self.scale

    def observe(self, value: float, mode: Literal["min", "max"]) -> None:
        sign = 1.0 if mode == "min" else -1.0
        best = sign * math.inf if self.best is None else self.best
        if sign * (best - value) > self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = max(self.scale * self.gamma, self.final), 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited, self.scale = state["best"], state["waited"], state["scale"]
