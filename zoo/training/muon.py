r"""Muon for the filters of convolutions, as the CIFAR-10 speed runs train them.

Jordan et al., 2024, https://kellerjordan.github.io/posts/muon, in the form of `airbench94_muon`
(https://github.com/KellerJordan/cifar10-airbench). `torch.optim.Muon` takes matrices alone; here a
filter bank ``(out, in, height, width)`` is the matrix ``(out, in * height * width)``.

Differences from torch's: three Newton-Schulz steps, no weight decay and no factor for tall
matrices; before each update a filter bank is brought to the norm :math:`\sqrt{out}`. That changes
nothing but the size of the step where batch normalisation follows, and everything where it does
not: this is for networks that normalise what their convolutions give.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

COEFFICIENTS = 3.4445, -4.7750, 2.0315


def orthogonalized(matrix: Tensor, *, steps: int, eps: float = 1e-7) -> Tensor:
    r"""Brings the singular values of a matrix towards 1 and leaves its singular vectors alone.

    After :math:`X \leftarrow M / \lVert M \rVert`, in bfloat16, each step is the quintic

    .. math:: X \leftarrow a X + (b A + c A^2) X, \quad A = X X^\top

    Args:
        matrix: ``(rows, columns)``.
        steps: of the iteration; five bring singular values to 0.7 to 1.2, three only most of them.
        eps: added to the norm.

    Returns:
        bfloat16 ``(rows, columns)``.
    """
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16()
    x = x / (x.norm() + eps)
    is_tall = x.size(0) > x.size(1)
    x = x.mT if is_tall else x
    for _ in range(steps):
        gram = x @ x.mT  # (least, least)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class FilterMuon(torch.optim.Optimizer):
    r"""Momentum whose direction is orthogonalised, on filters of a fixed norm.

    .. math::
        B &\leftarrow \mu B + G \\
        W &\leftarrow \sqrt{out}\, W / \lVert W \rVert - \gamma\,\mathrm{orthogonal}(G + \mu B)

    Args:
        params: filters, or groups of them.
        lr: :math:`\gamma`.
        momentum: :math:`\mu`.
        ns_steps: Newton-Schulz steps.
    """

    def __init__(
        self, params: Any, lr: float = 0.24, momentum: float = 0.6, ns_steps: int = 3
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr must be at least 0, not {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        if ns_steps < 1:
            raise ValueError(f"ns_steps must be at least 1, not {ns_steps}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "ns_steps": ns_steps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            momentum = group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                buffer = state["momentum_buffer"].mul_(momentum).add_(weight.grad)
                ahead = weight.grad.add(buffer, alpha=momentum)  # Nesterov's
                direction = orthogonalized(ahead.flatten(1), steps=group["ns_steps"])
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                weight.add_(direction.view(weight.shape), alpha=-group["lr"])


class TwoOptimizers(torch.optim.Optimizer):
    """One optimizer for the groups with `hidden=True`, another for the rest.

    Args:
        params: parameter groups.
        defaults: arguments that a group may have of its own.
        for_hidden: makes the optimizer of the hidden ones.
        for_rest: makes the other.
        wanted: what there must be for the first, for the message where there is nothing.

    Attributes:
        hidden_dims: how many dimensions the parameters of the first have.
        parts: the optimizers.
    """

    hidden_dims: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        defaults: dict[str, Any],
        for_hidden: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        for_rest: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        wanted: str,
    ) -> None:
        groups = [dict(group) for group in params]
        hidden = [g for g in groups if g.pop("hidden", False)]
        rest = [g for g in groups if not any(g is h for h in hidden)]
        if not hidden:
            raise ValueError(f"Muon needs {wanted} and this network has none; use optimizer=adamw")
        # Copies, since torch writes the defaults, Muon's rate among them, into what it is given.
        super().__init__([dict(group) for group in (*hidden, *rest)], defaults)
        self.parts = [for_hidden(hidden), *([for_rest(rest)] if rest else [])]
        self._share()

    def _share(self) -> None:
        # One list of the parts' own dictionaries, so that a schedule reaches both.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of each part."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()


class MuonWithSGD(TwoOptimizers):
    """Muon for the filters of convolutions, SGD with Nesterov's momentum for everything else.

    Args:
        params: parameter groups; those with `hidden=True` are Muon's.
        lr: learning rate of Muon.
        momentum: momentum of Muon.
        ns_steps: Newton-Schulz steps of Muon.
        weight_decay: of SGD; Muon's filters have a norm of their own and take none.
        sgd_lr: learning rate of SGD.
        sgd_momentum: momentum of SGD.

    Raises:
        ValueError: the network has no convolution, or a value is out of its range.
    """

    hidden_dims = (3, 4, 5)

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 0.24,
        momentum: float = 0.6,
        ns_steps: int = 3,
        weight_decay: float = 0.0,
        sgd_lr: float = 0.1,
        sgd_momentum: float = 0.85,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
            lambda hidden: FilterMuon(hidden, lr, momentum, ns_steps),
            lambda rest: torch.optim.SGD(
                rest,
                lr=sgd_lr,
                momentum=sgd_momentum,
                nesterov=True,
                weight_decay=weight_decay,
                fused=True,
            ),
            "the filters of a convolution",
        )
