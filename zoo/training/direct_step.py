"""The step of fused Adam, AdamW and SGD on a CPU without what torch does around their kernels.

`optimizer.step()` gathers the tensors of all parameters anew, names itself to a profiler, asks for
hooks and whether a graph is being captured: for a small network as long as the arithmetic itself.
Here the tensors are gathered once, and the same kernels are called with the same arguments on the
optimizer's own state, which hence becomes the same bit for bit. The numbers of steps become parts
of one tensor, so that one call counts them all. Whatever is not plain (hooks, a parameter without
gradient, the first step, any other optimizer) is left to `optimizer.step()`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

_ADAM = {torch.optim.Adam: torch._fused_adam_, torch.optim.AdamW: torch._fused_adamw_}


class _Group(NamedTuple):
    """The parameters of a group and their state, as the kernels want them."""

    options: dict[str, Any]
    parameters: list[Tensor]
    state: dict[str, list[Tensor]]
    steps: Tensor | None


class DirectStep:
    """Takes the steps of an optimizer, as `optimizer.step()` does.

    Args:
        optimizer: any; its groups and state may be loaded anew at any time.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._groups: list[_Group] = []
        self._state: Any = None

    def __call__(self) -> None:
        """Takes a step."""
        groups = self._gathered() if self._is_plain() else None
        gradients = [[p.grad for p in group.parameters] for group in groups or ()]
        if not groups or any(g is None or g.is_sparse for part in gradients for g in part):
            self._optimizer.step()
            return
        kind: Any = type(self._optimizer)
        with torch.no_grad():
            for group, part in zip(groups, gradients, strict=True):
                if kind is torch.optim.SGD:
                    _sgd(group, part)
                else:
                    _adam(_ADAM[kind], group, part)

    def _is_plain(self) -> bool:
        """Whether there is nothing that only `optimizer.step()` does."""
        optimizer = self._optimizer
        return (
            (type(optimizer) is torch.optim.SGD or type(optimizer) in _ADAM)
            and not optimizer._optimizer_step_pre_hooks
            and not optimizer._optimizer_step_post_hooks
            and not _global_optimizer_pre_hooks
            and not _global_optimizer_post_hooks
            and not {"step", "grad_scale", "found_inf"} & optimizer.__dict__.keys()
        )

    def _gathered(self) -> list[_Group] | None:
        """The groups with their state; None where a parameter has none yet, or it is unusual."""
        optimizer = self._optimizer
        # Loading a state gives an optimizer another dictionary of it, and other groups.
        if self._state is not optimizer.state or len(self._groups) != len(optimizer.param_groups):
            groups = [_gather(optimizer, options) for options in optimizer.param_groups]
            if any(group is None for group in groups):
                return None
            self._groups = [group for group in groups if group is not None]
            self._state = optimizer.state
        return self._groups


def _gather(optimizer: torch.optim.Optimizer, options: dict[str, Any]) -> _Group | None:
    if not options["fused"] or isinstance(options["lr"], Tensor):
        return None
    parameters: list[Tensor] = options["params"]
    names: tuple[str, ...] = ("momentum_buffer",) if options.get("momentum") else ()
    if "betas" in options:
        names = ("exp_avg", "exp_avg_sq", "step")
        names += ("max_exp_avg_sq",) if options["amsgrad"] else ()
    states = [optimizer.state.get(p, {}) for p in parameters]
    kinds = {(type(p), p.dtype, p.device.type) for p in parameters}
    is_usual = (
        len(kinds) == 1
        and kinds <= {(torch.nn.Parameter, t, "cpu") for t in (torch.float32, torch.float64)}
        and all(isinstance(state.get(name), Tensor) for state in states for name in names)
    )
    if not is_usual:
        return None
    steps = torch.stack([state["step"] for state in states]) if "step" in names else None
    if steps is not None:
        for state, step in zip(states, steps.unbind(), strict=True):
            state["step"] = step
    return _Group(options, list(parameters), {n: [s[n] for s in states] for n in names}, steps)


def _adam(kernel: Any, group: _Group, gradients: list[Any]) -> None:
    options, state = group.options, group.state
    assert group.steps is not None
    group.steps.add_(1)
    beta1, beta2 = options["betas"]
    kernel(
        group.parameters,
        gradients,
        state["exp_avg"],
        state["exp_avg_sq"],
        state.get("max_exp_avg_sq", []),
        state["step"],
        lr=options["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=options["weight_decay"],
        eps=options["eps"],
        amsgrad=options["amsgrad"],
        maximize=options["maximize"],
    )


def _sgd(group: _Group, gradients: list[Any]) -> None:
    options = group.options
    torch._fused_sgd_(
        group.parameters,
        gradients,
        group.state.get("momentum_buffer", []),
        lr=options["lr"],
        momentum=options["momentum"],
        dampening=options["dampening"],
        weight_decay=options["weight_decay"],
        nesterov=options["nesterov"],
        maximize=options["maximize"],
        is_first_step=False,
    )
