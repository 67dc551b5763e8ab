"""The learning rates of several networks and groups of parameters, each in its own updates.

A schedule is a function of the number of updates, and networks of one task need not have the same
number: a generator may be updated in every fifth step only. Its warm-up, its epochs and its end are
then counted in its own updates.
"""

import copy
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Literal

from zoo.training.schedules import Schedule


class Rates:
    """One schedule for several networks, and those of groups of parameters within them.

    Args:
        schedule: of the networks that are updated in every step, with those of its groups.
        networks: their names.
        update_every: in every how many-th step the others of them are updated, by name.
    """

    def __init__(
        self, schedule: Schedule, networks: Iterable[str], update_every: Mapping[str, int]
    ) -> None:
        networks = list(networks)
        self._every = {name: update_every.get(name, 1) for name in networks}
        self._groups = {
            group: Rates(own, networks, update_every) for group, own in schedule.groups.items()
        }
        # What answers to a metric is told of it in each of them, so that all have one state.
        self._schedules = {1: schedule} | {
            every: copy.deepcopy(schedule) for every in self._every.values() if every > 1
        }

    def bind(self, *, total_steps: int, steps_per_epoch: int) -> None:
        """Tells the schedules how long the run is, in steps."""
        for every in set(self._every.values()):
            self._schedules[every].bind(
                total_steps=max(1, total_steps // every),
                steps_per_epoch=Fraction(steps_per_epoch, every) if every > 1 else steps_per_epoch,
            )
        for rates in self._groups.values():
            rates.bind(total_steps=total_steps, steps_per_epoch=steps_per_epoch)

    def __call__(self, steps: int) -> dict[str, float]:
        """The factor of each network's rate in the step that follows `steps` steps."""
        factors = {n: self._schedules[n](steps // n) for n in set(self._every.values())}
        return {name: factors[every] for name, every in self._every.items()}

    def of_groups(self, steps: int) -> dict[str, dict[str, float]]:
        """The factors of the groups that have a schedule of their own, by group and network."""
        return {group: rates(steps) for group, rates in self._groups.items()}

    def observe(self, value: float, mode: Literal["min", "max"]) -> None:
        """Takes note of the monitored validation metric, after each evaluation."""
        for schedule in self._schedules.values():
            schedule.observe(value, mode)
        for rates in self._groups.values():
            rates.observe(value, mode)

    def state_dict(self) -> dict[str, Any]:
        """What a schedule carries between steps, and what those of groups do."""
        own = self._schedules[1].state_dict()
        groups = {group: rates.state_dict() for group, rates in self._groups.items()}
        return own | {"groups": groups} if groups else own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        for schedule in self._schedules.values():
            schedule.load_state_dict(state)
        for group, kept in state.get("groups", {}).items():
            if group in self._groups:  # Not where the run goes on with other groups.
                self._groups[group].load_state_dict(kept)
