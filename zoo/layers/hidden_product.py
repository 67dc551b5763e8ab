"""Products of the hidden state with a matrix, one a step, that a loop over time is made of.

Left to autograd, a loop of T steps takes T small products for the gradient of the recurrent matrix
and adds them up, each as large as the matrix: at 512 wide that is a quarter of the time. Here the
loop stays as it is, and the gradient of the matrix is one product over all steps. The products of
a few rows with a transposed matrix take a CPU up to twice as long as those with a copy that lies
transposed in memory; one copy a sequence pays after some 5 to 20 steps, by the size.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from zoo.layers.checks import needs_plain_operations

_WORTH_A_COPY = 8  # steps


def laid_out(matrix: Tensor, steps: int) -> Tensor:
    """A transposed matrix as a loop of so many products over it is quickest on."""
    return matrix.contiguous() if steps >= _WORTH_A_COPY and matrix.is_cpu else matrix


class _Product(Function):
    """``base + h W^T``, leaving the gradient of W to :class:`_WeightGradient`."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, h: Tensor, weight: Tensor, transposed: Tensor) -> Tensor:
        ctx.save_for_backward(h, weight)
        return torch.addmm(base, h, transposed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        h, weight = ctx.saved_tensors
        grad_h = grad @ weight if ctx.needs_input_grad[1] else None
        # Gradients are on in here when the gradient is to be differentiated once more: then every
        # step gives its own share, which hangs together with the states as autograd knows them.
        grad_weight = grad.t() @ h if torch.is_grad_enabled() else None
        return grad, grad_h, grad_weight, None


class _WeightGradient(Function):
    """Hands ``base`` on; in the backward pass, the gradient of all products that start from it."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, weight: Tensor, hidden: list[Tensor]) -> Tensor:
        ctx.hidden = hidden
        return base.view_as(base)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        if torch.is_grad_enabled() or not ctx.needs_input_grad[1]:
            return grad, None, None
        hidden = torch.stack(ctx.hidden)  # (time, batch, hidden_size)
        return grad, grad.flatten(0, 1).t() @ hidden.flatten(0, 1), None


class HiddenProduct:
    r"""Computes :math:`a_t + W (m \odot h)`, once for every step t.

    With :math:`a_t` the input's share of a gate, known for all steps before the loop begins.

    Args:
        base: :math:`a_1 \dots a_T`, the shares that do not depend on h.
        weight: the matrix W.
        mask: m, drawn once for the whole sequence (:class:`~zoo.layers.recurrence.
            Recurrence`), or None for ones.

    Shape:
        - base: ``(time, batch, width)``
        - weight: ``(width, hidden_size)``
        - mask and h: ``(batch, hidden_size)``
        - output: ``(batch, width)``
    """

    def __init__(self, base: Tensor, weight: Tensor, mask: Tensor | None = None) -> None:
        # Under autocast the input's share is of the lower precision, and so are the products.
        self.weight, self.mask = weight.to(base.dtype), mask
        self.is_plain = needs_plain_operations()
        if self.is_plain:
            self.base = base.unbind(0)
            return
        self.transposed = laid_out(self.weight.detach().t(), len(base))
        self.hidden = [base.new_empty(0)] * len(base)
        self.base = _WeightGradient.apply(base, self.weight, self.hidden).unbind(0)

    def __call__(self, t: int, h: Tensor) -> Tensor:
        h = h if self.mask is None else h * self.mask
        h = h.to(self.weight.dtype)
        if self.is_plain:
            return torch.addmm(self.base[t], h, self.weight.t())
        self.hidden[t] = h.detach()
        return _Product.apply(self.base[t], h, self.weight, self.transposed)
