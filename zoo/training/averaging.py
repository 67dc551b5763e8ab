"""Exponential moving average of weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class WeightAverage:
    r"""Average of a model's parameters over the steps.

    .. math:: \bar w \leftarrow d \, \bar w + (1 - d) \, w

    Polyak and Juditsky, 1992 (averaging); the exponential form as in Tarvainen and Valpola, 2017,
    https://arxiv.org/abs/1703.01780. Floating-point buffers (batch statistics) are not averaged:
    the model's own serve both.

    Args:
        model: whose parameters to average.
        decay: :math:`d`, per step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._names = [name for name, _ in model.named_parameters()]
        self._live = [p for _, p in model.named_parameters()]
        self._mean = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the present weights into the average."""
        torch._foreach_lerp_(self._mean, [p.detach() for p in self._live], 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average into the model for the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def keep(self) -> None:
        """Puts the average into the model for good."""
        self._swap()

    def _swap(self) -> None:
        for i, parameter in enumerate(self._live):
            # The storages change places: nothing is copied, and the optimizer keeps its parameters.
            parameter.data, self._mean[i] = self._mean[i], parameter.data

    def state_dict(self) -> dict[str, Any]:
        """The averaged parameters by name."""
        return dict(zip(self._names, self._mean, strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        for name, mean in zip(self._names, self._mean, strict=True):
            mean.copy_(state[name])
