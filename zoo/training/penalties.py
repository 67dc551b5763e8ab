r"""Penalties that are taken after an optimizer's step: sparse weights, their start, bounded norms.

With the step length :math:`\eta` and the weights :math:`v` that the optimizer arrives at, the
weights become

.. math:: \arg\min_w \tfrac{1}{2\eta} \lVert w - v \rVert^2 + \lambda_1 \lVert w \rVert_1
    + \tfrac{\alpha}{2} \lVert w - w_0 \rVert^2

that is (Parikh and Boyd 2014, https://doi.org/10.1561/2400000003, section 2), coordinate by
coordinate, a mean of :math:`v` and :math:`w_0`, then a soft threshold:

.. math:: u = \frac{v + \eta\alpha w_0}{1 + \eta\alpha}, \qquad
    w = \mathrm{sign}(u) \max\Bigl(|u| - \frac{\eta\lambda_1}{1 + \eta\alpha}, 0\Bigr)

- ``l1`` is :math:`\lambda_1`: small weights become exactly zero (Tibshirani 1996); together with
  weight decay this is the elastic net (Zou and Hastie 2005).
- ``towards_start`` is :math:`\alpha`, and :math:`w_0` are the weights that the run began with:
  L2-SP (Li, Grandvalet and Davoine 2018, https://arxiv.org/abs/1802.01483), equation 2.
- ``max_norm``: afterwards the weights of each unit (a row of a matrix, a kernel) are scaled down to
  this norm where theirs is larger (Srivastava et al. 2014, section 5.1).

With SGD, whose steps of a constant gradient have the length lr (1 - dampening) / (1 - momentum),
this minimises the loss plus the penalty. Other optimizers scale the gradient of each weight and the
penalty not, with :math:`\eta` = lr: as in AdamW, that is another penalty than one in the loss.
"""

from functools import partial
from typing import Any, TypedDict

import torch
from torch import Tensor


class PenaltyOptions(TypedDict, total=False):
    """What a configuration may say of them, for all parameters or a group."""

    l1: float
    towards_start: float
    max_norm: float | None


NO_PENALTY: dict[str, float | None] = {"l1": 0.0, "towards_start": 0.0, "max_norm": None}
START = "start"
"""Where a saved state keeps the weights that a run began with."""

# Their steps are not as long as their learning rates say.
_OF_OTHER_LENGTH = (torch.optim.Rprop, torch.optim.ASGD, torch.optim.Adafactor)


def check_penalties(values: dict[str, Any]) -> None:
    """Refuses penalties below zero, and a norm of zero.

    Raises:
        ValueError: naming the option and its value.
    """
    for name in ("l1", "towards_start"):
        if not values.get(name, 0) >= 0:
            raise ValueError(f"{name} must be at least 0, not {values[name]}")
    if (norm := values.get("max_norm")) is not None and not norm > 0:
        raise ValueError(f"max_norm must be greater than 0, or null, not {norm}")


def add_penalties(optimizer: torch.optim.Optimizer) -> None:
    """Has an optimizer whose groups have these options take them after every step.

    The weights that it has now are those that the run begins with. They are saved with its state.

    Raises:
        ValueError: the optimizer's steps have no known length.
    """
    soft = any(g["l1"] or g["towards_start"] for g in optimizer.param_groups)
    if soft and isinstance(optimizer, _OF_OTHER_LENGTH):
        raise ValueError(
            f"l1 and towards_start need steps as long as the learning rate says, and those of "
            f"{type(optimizer).__name__} are not; use optimizer=sgd or optimizer=adamw"
        )
    for part in getattr(optimizer, "parts", [optimizer]):
        start = {
            parameter: parameter.detach().clone()
            for group in part.param_groups
            for parameter in group["params"]
            if group["towards_start"]
        }
        part.register_step_post_hook(partial(_after_step, start))
        part.register_state_dict_post_hook(partial(_save_start, start))
        part.register_load_state_dict_pre_hook(partial(_load_start, start))


def forget_start(optimizer: torch.optim.Optimizer) -> None:
    """Has an optimizer without penalties load the state of one that had a start."""
    for part in getattr(optimizer, "parts", [optimizer]):
        part.register_load_state_dict_pre_hook(partial(_load_start, {}))


@torch.no_grad()
def _after_step(
    start: dict[Tensor, Tensor], optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
) -> None:
    # What makes a fused kernel skip its update; a step that is not taken has no penalty either.
    skip: Tensor | None = getattr(optimizer, "found_inf", None)
    taken: Tensor | float = 1.0 if skip is None else (skip == 0).float()
    for group in optimizer.param_groups:
        length = _step_length(optimizer, group) * taken
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            weight = _local(parameter)
            pull = 0.0 * length
            if parameter in start:
                start[parameter] = start[parameter].to(parameter.device)
                pull = length * group["towards_start"]
                weight.lerp_(_local(start[parameter]), pull / (1 + pull))
            if group["l1"]:
                threshold = length * group["l1"] / (1 + pull)
                weight.copy_(weight.sign() * (weight.abs() - threshold).clamp(min=0))
            if group["max_norm"] is not None and weight.ndim > 1:
                norms = torch.linalg.vector_norm(weight.flatten(1), dim=1)  # (units,)
                scale = group["max_norm"] / norms.clamp(min=group["max_norm"])
                scale = 1 - (1 - scale) * taken
                weight.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))


def _step_length(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> float:
    """How far a constant gradient of 1 moves a weight in a step, in the end."""
    length = float(group["lr"])
    if isinstance(optimizer, torch.optim.SGD) and group["momentum"]:
        length *= (1 - group["dampening"]) / (1 - group["momentum"])
    return length


def _local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: whole rows, where it is sharded."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _save_start(
    start: dict[Tensor, Tensor], optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> dict[str, Any]:
    values = dict(state["state"])
    for number, parameter in _numbered(optimizer, state):
        if parameter in start:
            values[number] = {**values.get(number, {}), START: start[parameter]}
    return {**state, "state": values}


def _load_start(
    start: dict[Tensor, Tensor], optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> dict[str, Any]:
    values = {n: {k: v for k, v in of.items() if k != START} for n, of in state["state"].items()}
    for number, parameter in _numbered(optimizer, state):
        if parameter not in start:
            continue
        if START not in state["state"].get(number, {}):
            raise ValueError(
                "optimizer.towards_start needs the weights that the run began with, which it has "
                "not kept, since it began without; begin a new run from these weights "
                "(model.weights=<run>/checkpoints/last.pt)"
            )
        start[parameter].copy_(state["state"][number][START])
    return {**state, "state": {number: of for number, of in values.items() if of}}


def _numbered(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> list[tuple[int, Tensor]]:
    """The parameters of an optimizer, each with its number in a state."""
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return list(zip(numbers, parameters, strict=False))
