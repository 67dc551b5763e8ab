"""Exponential moving average of weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    r"""Average of a model's parameters, and of its statistics, over the steps.

    .. math:: \bar w \leftarrow d_n \, \bar w + (1 - d_n) \, w, \qquad
        d_n = \min\Bigl(d, \frac{1 + n}{10 + n}\Bigr)

    with :math:`n` the steps that are in the average already. Polyak and Juditsky, 1992 (averaging);
    the exponential form as in Tarvainen and Valpola, 2017, https://arxiv.org/abs/1703.01780. The
    decay rises as in TensorFlow's `ExponentialMovingAverage`, without which a short run would still
    hold most of its initial weights at its end.

    Buffers of floating point are averaged too: the batch statistics of the live weights are not
    those of the averaged ones. Constants that are not finite (masks) and integers are left alone.
    The average is kept in single precision where the model is in less, in which a small step would
    be rounded away.

    Args:
        model: what to average.
        decay: :math:`d`, per step.
        local: gives what this process holds of some tensors, where they are divided.

    Attributes:
        steps: :math:`n`.
    """

    def __init__(
        self, model: nn.Module, decay: float, local: Callable[[list[Tensor]], list[Tensor]] = list
    ) -> None:
        self.decay, self._local = decay, local
        self.steps = 0
        averaged: dict[str, Tensor] = dict(model.named_parameters())
        kept = model.state_dict().keys()  # A buffer that is not saved is a constant.
        for name, buffer in model.named_buffers():
            if name in kept and buffer.is_floating_point() and bool(buffer.isfinite().all()):
                averaged[name] = buffer
        self._names, self._live = list(averaged), list(averaged.values())
        self._mean = [_precise(tensor.detach()).clone() for tensor in self._live]

    @torch.no_grad()
    def begin(self) -> None:
        """Takes the present weights for the average, before there is any step."""
        torch._foreach_copy_(self._local(self._mean), self._present())

    @torch.no_grad()
    def update(self) -> None:
        """Takes the present weights into the average."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        present = [_precise(tensor) for tensor in self._present()]
        torch._foreach_lerp_(self._local(self._mean), present, 1 - decay)
        self.steps += 1

    def _present(self) -> list[Tensor]:
        return self._local([tensor.detach() for tensor in self._live])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average into the model for the block."""
        kept = [tensor.clone() for tensor in self._present()]
        self.keep()
        try:
            yield
        finally:
            torch._foreach_copy_(self._present(), kept)

    def keep(self) -> None:
        """Puts the average into the model for good."""
        torch._foreach_copy_(self._present(), self._local(self._mean))

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged tensors by name; of a parameter that has several, by the first."""
        return dict(zip(self._names, self._mean, strict=True))

    def load_state_dict(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Restores what `state_dict` gave.

        Args:
            state: tensors by name, those of the model itself where there is no average of them.
            steps: how many are in the average.
        """
        for name, mean in zip(self._names, self._mean, strict=True):
            mean.copy_(state[name])
        self.steps = steps


def _precise(tensor: Tensor) -> Tensor:
    """The tensor in single precision, if it is in less."""
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
