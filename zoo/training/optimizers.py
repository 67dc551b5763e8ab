"""Optimizers: any class of `torch.optim`, with the defaults that cost nothing to have right.

Normalisation weights and biases take no weight decay unless asked, the fused implementation is used
where the class has one, and a class that cannot work in a plain training step says what to use.

What a network, or a module in it, says of itself, where it does:

- ``no_weight_decay()``: names of its parameters that take no weight decay either, as in timm;
- ``output_layers``: names of the layers that Muon leaves to AdamW because their outputs are the
  network's; without it, that is the last linear layer.
"""

import contextlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy, deepcopy
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import nn

from zoo.training.muon import TwoOptimizers
from zoo.training.penalties import (
    NO_PENALTY,
    PenaltyOptions,
    add_penalties,
    check_penalties,
    forget_start,
)


class OptimizerOptions(PenaltyOptions, total=False):
    """What a configuration may say of any optimizer, besides the arguments of its class."""

    decay_norms_and_biases: bool
    groups: dict[str, dict[str, Any]]


class MuonWithAdamW(TwoOptimizers):
    """Muon for the hidden matrices, AdamW for everything else.

    Jordan et al., 2024, https://kellerjordan.github.io/posts/muon. Embeddings, the output layer,
    convolution kernels, norms and biases go to AdamW, as the authors advise.

    Args:
        params: parameter groups; those with `hidden=True` are Muon's.
        lr: learning rate of Muon.
        momentum: momentum of Muon.
        weight_decay: decoupled weight decay of both.
        adamw_lr: learning rate of AdamW.
        adamw_betas: betas of AdamW.

    Raises:
        ValueError: the network has no hidden matrix.
    """

    hidden_dims = (2,)

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        adamw_lr: float = 1e-3,
        adamw_betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "weight_decay": weight_decay},
            lambda hidden: torch.optim.Muon(
                hidden, lr=lr, momentum=momentum, weight_decay=weight_decay
            ),
            lambda rest: torch.optim.AdamW(
                rest, lr=adamw_lr, betas=adamw_betas, weight_decay=weight_decay, fused=True
            ),
            "a hidden matrix",
        )


_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


def _undecayed(network: nn.Module) -> set[int]:
    """Norms, biases and what the network itself names: parameters, by their `id`."""
    found = {id(p) for p in network.parameters() if p.ndim <= 1}
    for module in network.modules():
        if isinstance(module, _NORMS):
            found |= {id(p) for p in module.parameters(recurse=False)}
        if (names := getattr(module, "no_weight_decay", None)) is not None:
            told = set(cast(Callable[[], Iterable[str]], names)())
            found |= {id(p) for name, p in module.named_parameters() if name in told}
    return found


def _outer(network: nn.Module) -> set[int]:
    """Embeddings and output layers: parameters, by their `id`."""
    modules = list(network.modules())
    told = {m: cast(Iterable[str], m.output_layers) for m in modules if hasattr(m, "output_layers")}
    outputs = [part for m, own in told.items() for name, part in m.named_modules() if name in own]
    if not told:
        outputs = [m for m in modules if isinstance(m, nn.Linear)][-1:]
    embeddings = [m for m in modules if isinstance(m, nn.Embedding)]
    return {id(p) for module in (*outputs, *embeddings) for p in module.parameters()}


def _parameter_groups(
    network: nn.Module,
    *,
    decay: float,
    penalties: Mapping[str, float | None],
    decay_norms_and_biases: bool,
    groups: Mapping[str, Mapping[str, Any]],
    hidden_dims: Sequence[int],
) -> list[dict[str, Any]]:
    """Parameters that are updated alike, in the order of the network."""
    none = ({"weight_decay": 0.0} if decay else {}) | {name: NO_PENALTY[name] for name in penalties}
    spared = set() if decay_norms_and_biases or not none else _undecayed(network)
    outer = _outer(network)
    made: dict[Any, dict[str, Any]] = {}
    unused = set(groups)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        options: dict[str, Any] = dict(penalties)
        if id(parameter) in spared:
            options |= none
        if hidden_dims:
            options["hidden"] = parameter.ndim in hidden_dims and id(parameter) not in outer
        for pattern, changes in groups.items():
            if fnmatchcase(name, pattern):
                options |= {**changes, "name": pattern}  # By which a schedule knows the group.
                unused.discard(pattern)
        key = repr(sorted(options.items()))  # Not the values, which may be lists.
        made.setdefault(key, {"params": [], **options})["params"].append(parameter)
    if unused:
        names = ", ".join(name for name, _ in network.named_parameters())
        raise ValueError(f"groups: no parameter matches {sorted(unused)[0]!r}; there are {names}")
    return list(made.values())


def make_optimizer(
    kind: Callable[..., torch.optim.Optimizer],
    network: nn.Module,
    *,
    decay_norms_and_biases: bool = False,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    l1: float = 0.0,
    towards_start: float = 0.0,
    max_norm: float | None = None,
    **arguments: Any,
) -> torch.optim.Optimizer:
    """An optimizer of a network's trainable parameters.

    Args:
        kind: an optimizer class.
        network: whose parameters to update.
        decay_norms_and_biases: whether weight decay, and the penalties below, reach normalisation
            weights, biases and what the network's `no_weight_decay()` names too.
        groups: other values for some parameters: pattern of their names (`*` stands for anything)
            to arguments of the class or penalties, such as `{"convs.1.*": {"weight_decay": 0.0}}`.
            The pattern is the name of the group, for a schedule and in the training curve.
        l1: penalty on the sum of the weights' magnitudes, see `zoo/training/penalties.py`.
        towards_start: penalty on half the squared distance from the weights of now.
        max_norm: largest norm of the weights that lead to one unit; None: no bound.
        arguments: of the class.

    Returns:
        The optimizer, fused where the class has a fused form for the parameters' device.

    Raises:
        ValueError: the class cannot work in a plain training step, nothing is trainable, or
            `groups` has a pattern that matches nothing or a value that the class does not take.
    """
    name = getattr(kind, "__name__", str(kind))
    if kind is not torch.optim.LBFGS and _wants_closure(kind):
        raise ValueError(
            f"{name} needs a closure that evaluates the loss several times a step, which this "
            "trainer does not give; use optimizer=adamw or optimizer=sgd"
        )
    if kind is torch.optim.SparseAdam:
        raise ValueError("SparseAdam only takes sparse gradients; use optimizer=adam")
    trainable = [p for p in network.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("the network has no trainable parameter")
    if kind is torch.optim.Muon and any(p.ndim != 2 for p in trainable):
        raise ValueError(
            "Muon only takes matrices, and this network has other parameters; use optimizer=muon, "
            "which gives the rest to AdamW"
        )
    signature = inspect.signature(kind).parameters
    default = signature["weight_decay"].default if "weight_decay" in signature else 0.0
    penalties: dict[str, Any] = {"l1": l1, "towards_start": towards_start, "max_norm": max_norm}
    asked = [penalties, *(groups or {}).values()]
    for values in asked:
        check_penalties(dict(values))
    is_penalised = any(
        v.get(name, none) != none for v in asked for name, none in NO_PENALTY.items()
    )
    if kind is torch.optim.LBFGS and (groups or is_penalised):
        raise ValueError(
            "LBFGS minimises one smooth function of all parameters alike: it takes no groups, l1, "
            "towards_start or max_norm; use optimizer=sgd"
        )
    parameters = _parameter_groups(
        network,
        decay=arguments.get("weight_decay", default),
        penalties=penalties if is_penalised else {},
        decay_norms_and_biases=decay_norms_and_biases,
        groups=groups or {},
        hidden_dims=getattr(kind, "hidden_dims", ()),
    )
    optimizer: torch.optim.Optimizer | None = None
    # Fused forms do not all know shards, which are told by the mesh that they lie on.
    whole = not any(hasattr(parameter, "device_mesh") for parameter in trainable)
    told = {"fused", "foreach", "differentiable"} & set(arguments)
    if "fused" in signature and whole and not told:
        # Where there is no fused form for this device or type of parameter: the class's default.
        with contextlib.suppress(RuntimeError):
            # Copies, since torch writes into what it is given even where it then refuses.
            optimizer = kind([dict(group) for group in parameters], **arguments, fused=True)
    if kind is torch.optim.Adagrad and optimizer is not None and not takes_found_inf(optimizer):
        # That of torch 2.11 is for CPUs alone, and would say so at the first step.
        optimizer = optimizer if all(p.is_cpu for p in trainable) else None
    if optimizer is None:
        optimizer = kind(parameters, **arguments)
    for pattern, changes in (groups or {}).items():
        known = [*optimizer.defaults, *NO_PENALTY]
        if unknown := sorted(set(changes) - set(known)):
            raise ValueError(
                f"groups: {pattern!r} sets {unknown[0]!r}; groups of {name} have {', '.join(known)}"
            )
    if is_penalised:
        add_penalties(optimizer)
    else:
        forget_start(optimizer)
    return optimizer


def _wants_closure(kind: Callable[..., torch.optim.Optimizer]) -> bool:
    """Whether a class's steps need a function that evaluates the loss."""
    step = getattr(kind, "step", None)
    closure = inspect.signature(step).parameters.get("closure") if step else None
    return closure is not None and closure.default is inspect.Parameter.empty


def by_network(
    optimizers: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer],
    networks: Mapping[str, nn.Module],
) -> dict[str, torch.optim.Optimizer]:
    """The optimizers by the networks' names; a single one may be given for a single network.

    Raises:
        ValueError: they are not one for each network, update what no network has, or do not update
            all that is to be trained.
    """
    if isinstance(optimizers, torch.optim.Optimizer):
        optimizers = dict.fromkeys(networks, optimizers)
    distinct = len(set(map(id, optimizers.values())))
    if set(optimizers) != set(networks) or distinct != len(networks):
        raise ValueError(
            f"optimizers must be one for each of {', '.join(networks)}, not {', '.join(optimizers)}"
        )
    for name, optimizer in optimizers.items():
        own = set(map(id, networks[name].parameters()))
        updated = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not updated <= own:
            raise ValueError(
                f"the optimizer of {name!r} has parameters that the network does not have; make it "
                "of the network's parameters, after a part of it was replaced or wrapped"
            )
        for parameter, p in networks[name].named_parameters():
            if p.requires_grad and id(p) not in updated:
                raise ValueError(
                    f"the optimizer of {name!r} does not update {parameter}; make it of all of the "
                    "network's parameters, or switch requires_grad of this one off"
                )
    return dict(optimizers)


def require_groups(names: Iterable[str], optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Makes sure that some optimizer has a group of each name.

    Raises:
        ValueError: one has no such group.
    """
    groups = [group for optimizer in optimizers.values() for group in optimizer.param_groups]
    known = list(dict.fromkeys(group["name"] for group in groups if "name" in group))
    for name in names:
        if name not in known:
            has = f"only {', '.join(map(repr, known))}" if known else "none at all"
            raise ValueError(
                f"schedule.groups: the optimizer has no group {name!r}, {has}; make it with "
                f"optimizer.groups={{{name}: {{}}}}"
            )


def takes_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step evaluates the loss itself, perhaps several times: L-BFGS."""
    return isinstance(optimizer, torch.optim.LBFGS)


def takes_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's kernel itself can skip an update on a flag of the device."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def prepare_for_skips(optimizer: torch.optim.Optimizer) -> None:
    """Makes sure that an update which the optimizer's kernel skips leaves nothing behind.

    Fused SGD makes its momentum buffers in the first update and fills them only where that is not
    skipped. Made here, they are zero until then, from which the first update is the same; but with
    dampening, of which the first update has none, so that there the fused kernel is not used.
    """
    if not isinstance(optimizer, torch.optim.SGD) or not takes_found_inf(optimizer):
        return
    if any(group["momentum"] and group["dampening"] for group in optimizer.param_groups):
        for group in optimizer.param_groups:
            group["fused"] = False
        optimizer._step_supports_amp_scaling = False
        return
    _make_buffers(optimizer)
    optimizer.register_load_state_dict_post_hook(_make_buffers)


def _make_buffers(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def names_in_order(optimizer: torch.optim.Optimizer, network: nn.Module) -> list[str]:
    """The names of an optimizer's parameters, in the order in which its state numbers them."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def arranged(
    state: dict[str, Any],
    saved: Sequence[str],
    optimizer: torch.optim.Optimizer,
    own: Sequence[str],
) -> dict[str, Any]:
    """A saved state in the groups and the order of an optimizer, parameter by parameter.

    Other groups or another weight decay order an optimizer's parameters in another way, and what
    has been gathered for one must not come to another.

    Args:
        state: the saved state, which numbers its parameters.
        saved: their names in that order.
        optimizer: whose groups and order to have.
        own: the names in its order.

    Raises:
        ValueError: the state belongs to other parameters.
    """
    if sorted(saved) != sorted(own):
        other = min(set(saved) ^ set(own), default="a parameter twice")
        raise ValueError(f"the state of the optimizer is that of other parameters ({other})")
    gathered: dict[str, Any] = {}
    rates: dict[str, Any] = {}
    names = iter(saved)
    for part in state.get("parts", [state]):
        for group in part["param_groups"]:
            for number in group["params"]:
                name = next(names)
                rates[name] = group["lr"]
                if number in part["state"]:
                    gathered[name] = part["state"][number]
    made: list[dict[str, Any]] = []
    names = iter(own)
    for part in getattr(optimizer, "parts", [optimizer]):
        groups, values = part.state_dict()["param_groups"], {}
        for group in groups:
            for number in group["params"]:
                name = next(names)
                group["lr"] = rates[name]
                if name in gathered:
                    values[number] = gathered[name]
        made.append({"state": values, "param_groups": groups})
    return {"parts": made} if "parts" in state else made[0]


def names_of_0_1_0(network: nn.Module, sizes: Sequence[int]) -> list[str] | None:
    """The order of parameters where norms and biases alone were spared weight decay.

    Version 0.1.0 kept no names, and knew nothing else that a network may spare.

    Args:
        network: whose parameters.
        sizes: how many each group of the saved state has.

    Returns:
        Their names; None where the groups were others.
    """
    groups: dict[bool, list[str]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(parameter.ndim <= 1, []).append(name)
    fits = [len(group) for group in groups.values()] == list(sizes)
    return [name for group in groups.values() for name in group] if fits else None


def grouping(state: dict[str, Any]) -> list[int]:
    """How many parameters each group of a saved state has."""
    return [len(group["params"]) for group in _groups(state)]


def arguments(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The arguments of each group of a saved state, rates aside."""
    kept = ("params", "lr", "initial_lr")
    return [{k: v for k, v in group.items() if k not in kept} for group in _groups(state)]


def _groups(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [group for part in state.get("parts", [state]) for group in part["param_groups"]]


def require_gathered(optimizer: torch.optim.Optimizer) -> None:
    """Tries a step with what has been gathered, on a copy of one parameter of each group.

    An argument that was changed may need what no step before has gathered (Adam's `amsgrad`).

    Raises:
        ValueError: a step fails.
    """
    if takes_closure(optimizer):
        return  # Every argument is for what has been gathered.
    for part in getattr(optimizer, "parts", [optimizer]):
        for group in part.param_groups:
            with_state = [p for p in group["params"] if part.state.get(p)]
            if not with_state:
                continue
            parameter = min(with_state, key=torch.Tensor.numel)
            trial = nn.Parameter(parameter.detach().clone())
            trial.grad = torch.zeros_like(trial)
            probe = copy(part)
            probe.param_groups = [{**group, "params": [trial]}]
            probe.state = defaultdict(dict, {trial: deepcopy(part.state[parameter])})
            try:
                probe.step()
            except Exception as error:  # Each class fails in its own way.
                raise ValueError(
                    f"the optimizer cannot go on with these arguments: {type(part).__name__} would "
                    f"need {error}, which the run has not gathered; keep them as they were"
                ) from error


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restores an optimizer's state but not its hyperparameters, which are the configuration's.

    The rate of the last step is part of the state; the next one follows from `initial_lr`.

    Raises:
        ValueError: the state belongs to other parameters.
    """
    kept = ("params", "lr")
    own = [{k: v for k, v in g.items() if k not in kept} for g in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, own, strict=True):
        group.update(values)
