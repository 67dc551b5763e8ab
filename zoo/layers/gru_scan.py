r"""The GRU over time with its gradient by hand, for CPUs.

`torch.nn.GRU` has no kernel on a CPU: it goes through the steps as autograd would, and takes most
of its time for the gradients. Here the gates are computed in place, in memory taken once, and the
backward pass rests on one observation: with the activations known, a step back is *linear* in the
gradient :math:`\delta_t` of :math:`h_t`. From

.. math::
    h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1}, \qquad
    n_t = \tanh(a_t + r_t \odot m_t), \qquad m_t = W_{hn} h_{t-1} + b_{hn}

it follows, for what goes into the gates, that

.. math::
    \mathrm{d} r_t &= \delta_t \odot (1 - z_t)(1 - n_t^2)\, m_t\, r_t (1 - r_t) \\
    \mathrm{d} z_t &= \delta_t \odot (h_{t-1} - n_t)\, z_t (1 - z_t) \\
    \mathrm{d} m_t &= \delta_t \odot (1 - z_t)(1 - n_t^2)\, r_t \\
    \delta_{t-1} &= \nabla_{t-1} + \delta_t \odot z_t + (\mathrm{d} r_t, \mathrm{d} z_t,
        \mathrm{d} m_t)\, W_{hh}

with :math:`\nabla` the gradient that comes from outside. All factors of :math:`\delta` are computed
for all steps at once; the loop back is a product, a sum and a matrix product a step; and the
gradients of the matrices are one product each when it is over.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from zoo.layers.hidden_product import laid_out


class _GRUScan(Function):
    """See :func:`gru_scan`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        alive: Sequence[int] | None,
        is_reverse: bool,
    ) -> tuple[Tensor, Tensor]:
        time, batch, _ = x.shape
        size = h.size(1)
        rows = x.flatten(0, 1)  # (time * batch, input_size)
        bias = bias_ih.clone()
        bias[: 2 * size] += bias_hh[: 2 * size]
        gates = torch.addmm(bias, rows, weight_ih.t())
        gates = gates.view(time, batch, 3 * size)  # r, z and n, side by side
        m = x.new_empty(time, batch, size)
        states = x.new_empty(time + 1, batch, size)
        before, after = (states[1:], states[:-1]) if is_reverse else (states[:-1], states[1:])
        first, last = (time - 1, 0) if is_reverse else (0, time - 1)
        before[first] = h

        # All slices are taken before the loop: a slice costs as much as a small operation.
        r_, z_, n_ = (gate.unbind(0) for gate in gates.chunk(3, dim=2))
        rz_, m_ = gates[..., : 2 * size].unbind(0), m.unbind(0)
        before_, after_ = before.unbind(0), after.unbind(0)
        weight_rz, weight_n = (laid_out(w.t(), time) for w in weight_hh.split([2 * size, size]))
        bias_n = bias_hh[2 * size :]
        for t in range(time - 1, -1, -1) if is_reverse else range(time):
            rz_[t].addmm_(before_[t], weight_rz).sigmoid_()
            if alive is not None and alive[t] < batch:
                z_[t][alive[t] :] = 1  # a sequence that does not reach here keeps its state
            torch.addmm(bias_n, before_[t], weight_n, out=m_[t])
            n_[t].addcmul_(r_[t], m_[t]).tanh_()
            torch.lerp(n_[t], before_[t], z_[t], out=after_[t])
        ctx.save_for_backward(rows, before, gates, m, weight_ih, weight_hh)
        ctx.is_reverse = is_reverse
        # Copies, so that the caller may change them in place.
        return after.clone(), after[last].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        rows, before, gates, m, weight_ih, weight_hh = ctx.saved_tensors
        time, batch, size = m.shape
        r, z, n = gates.chunk(3, dim=2)

        # What delta is multiplied with to give the gradients of r, z and m, side by side.
        factors = torch.empty_like(gates)
        of_r, of_z, of_m = factors.chunk(3, dim=2)
        shut = 1 - z
        of_n = (1 - n * n).mul_(shut)
        torch.mul(of_n, r, out=of_m)
        torch.sub(1, r, out=of_r).mul_(of_m).mul_(m)
        torch.sub(before, n, out=of_z).mul_(shut.mul_(z))

        deltas = torch.empty_like(m)
        delta_, z_, grad_ = deltas.unbind(0), z.unbind(0), grad.unbind(0)
        wide_, blocks_ = factors.unbind(0), factors.unflatten(2, (3, size)).unbind(0)
        blocked_ = deltas.unsqueeze(2).unbind(0)  # (batch, 1, hidden_size) each
        grad_h = torch.empty_like(grad_last)
        order = list(range(time)) if ctx.is_reverse else list(range(time - 1, -1, -1))
        torch.add(grad_[order[0]], grad_last, out=delta_[order[0]])
        zeros = torch.zeros_like(grad_last)
        for t, onward in zip(order, [*order[1:], None], strict=True):
            blocks_[t].mul_(blocked_[t])
            outside = zeros if onward is None else grad_[onward]
            target = grad_h if onward is None else delta_[onward]
            torch.addcmul(outside, delta_[t], z_[t], out=target).addmm_(wide_[t], weight_hh)

        d_gates = factors.flatten(0, 1)  # (time * batch, 3 * hidden_size)
        grad_weight_hh = d_gates.t() @ before.flatten(0, 1)
        grad_bias_hh = d_gates.sum(0)
        torch.mul(deltas, of_n, out=of_m)  # the input is added outside of r's product
        grad_weight_ih = d_gates.t() @ rows
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (d_gates @ weight_ih).view(time, batch, weight_ih.size(1))
        return (
            grad_x,
            grad_h,
            grad_weight_ih,
            grad_weight_hh,
            d_gates.sum(0),
            grad_bias_hh,
            None,
            None,
        )


def gru_scan(
    x: Tensor,
    h: Tensor,
    weights: Sequence[Tensor],
    alive: Sequence[int] | None = None,
    *,
    is_reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """One layer of :class:`~zoo.models.recurrent.gru.GRU` in one direction.

    Under autocast it computes in float32. Its gradient cannot be differentiated once more (torch
    says so); ``backend="written"`` can.

    Args:
        x: inputs of all steps.
        h: the state before the first step.
        weights: ``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``.
        alive: how many sequences, of falling length, reach each step; None for all.
        is_reverse: from the last step to the first.

    Shape:
        - x: ``(time, batch, input_size)``
        - h: ``(batch, hidden_size)``
        - output: ``(time, batch, hidden_size)``, and the state after the last step
    """
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            tensors = [tensor.float() for tensor in (x, h, *weights)]
            return _GRUScan.apply(*tensors, alive, is_reverse)
    return _GRUScan.apply(x, h, *weights, alive, is_reverse)
