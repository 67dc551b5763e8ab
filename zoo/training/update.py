"""From losses to updated weights: scaling, dividing, checking, clipping, stepping.

The order of an update: unscale, divide by the count, check finite, clip, step. The check comes
before clipping because a clipped infinity looks finite.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from zoo.training.optimizers import takes_found_inf

SMALLEST_SCALE = 2.0**-14
"""An fp16 loss scale below this no longer protects anything: the run is stopped."""


class NonFiniteError(RuntimeError):
    """A loss or gradient became NaN or infinite; the weights are those of the step before."""


def _step_of(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """The optimizer's step, without torch's wrapper for hooks where nobody hooked into it.

    The wrapper takes some 8 microseconds, as long as the forward pass of a small layer. A step that
    was put into the optimizer itself, as torch's own schedulers do, is left in place.
    """
    step = type(optimizer).step
    hooks = (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        _global_optimizer_pre_hooks,
        _global_optimizer_post_hooks,
    )
    inner = getattr(step, "__wrapped__", None)
    replaced = "step" in vars(optimizer)
    if inner is None or replaced or not getattr(step, "hooked", False) or any(hooks):
        return optimizer.step
    return partial(inner, optimizer)


class Updater:
    """Takes the optimizer steps of a task's networks.

    A flag on the device rises with the first loss or gradient that is not finite. On a CPU it is
    looked at in every update. A GPU is not made to wait for that: fused optimizers skip every
    update while the flag is up, and it is read with the training curve; only optimizers that cannot
    skip are looked at in every update there too. With fp16 the loss scaler handles its own
    overflows.

    Args:
        model: all networks together.
        optimizers: one for each network.
        device: where the parameters are.
        dtype: autocast type; None: no autocast.
        clip_norm: largest global norm of a network's gradient.
        clip_value: largest magnitude of a gradient's element.

    Attributes:
        norms: global gradient norm of each network, before clipping, of the last update that was
            asked to measure it (or that clipped).
        layers: gradient norm of each parameter by name, likewise.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Mapping[str, torch.optim.Optimizer],
        *,
        device: torch.device,
        dtype: torch.dtype | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        self.optimizers = dict(optimizers)
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.autocast: Any = torch.autocast(device.type, dtype=dtype) if dtype else nullcontext()
        self.scaler = torch.amp.GradScaler(device.type) if dtype is torch.float16 else None
        self.parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in self.optimizers.items()
        }
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])  # The name is torch's.
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._one = torch.ones((), device=device)
        self._flag = torch.zeros((), device=device)
        self._masked = torch.zeros((), device=device)
        self._looked_at = {
            name
            for name, optimizer in self.optimizers.items()
            if device.type == "cpu" or self.scaler is not None or not takes_found_inf(optimizer)
        }
        self._masks = len(self._looked_at) < len(self.optimizers)
        for name, optimizer in self.optimizers.items():
            if name not in self._looked_at:
                optimizer.found_inf = self._flag  # type: ignore[attr-defined]
        self.start()
        self.norms: dict[str, Tensor] = {}
        self.layers: dict[str, Tensor] = {}

    def start(self) -> None:
        """Looks once more at the optimizers; to be called when training begins."""
        self._steps = {name: _step_of(o) for name, o in self.optimizers.items()}

    def set_rates(self, factor: float) -> None:
        """Sets every learning rate to its own value times the schedule's factor."""
        # Always asked for anew: loading a state gives an optimizer other groups.
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def backward(self, loss: Tensor, network: str) -> None:
        """Adds the gradient of a loss to one network's parameters and to no other's."""
        if not loss.requires_grad:
            raise RuntimeError(
                f"the loss of {network!r} has no gradient: a task must not yield inside "
                "torch.no_grad(), and something in the network must be trainable"
            )
        inputs = self.parameters[network] if len(self.parameters) > 1 else None
        (loss if self.scaler is None else self.scaler.scale(loss)).backward(inputs=inputs)

    def update(
        self,
        network: str,
        loss: Tensor,
        count: Tensor | int | None = None,
        *,
        measure: bool = False,
    ) -> bool:
        """Takes one network's step with the gradients that have gathered, and clears them.

        Args:
            network: its name.
            loss: what the gradients are of, detached; becomes the mean, in place.
            count: what to divide loss and gradients by, where they are sums.
            measure: whether to note the gradient norms.

        Returns:
            Whether a step was taken; fp16 scaling skips one now and then.

        Raises:
            NonFiniteError: loss or gradient is not finite, where the flag is looked at.
        """
        optimizer, parameters = self.optimizers[network], self.parameters[network]
        gradients = [p.grad for p in parameters if p.grad is not None]
        inverse = self._one if count is None else self._one / count
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
            torch._foreach_mul_([*gradients, loss], inverse)
        else:
            # One pass divides loss and gradients and raises the flag; GradScaler's own kernel.
            torch._amp_foreach_non_finite_check_and_unscale_(
                [*gradients, loss], self._flag, inverse
            )
            if network in self._looked_at and self._flag.item():
                raise self._non_finite(loss)
        if measure or self.clip_norm is not None:
            self.norms[network] = norm = torch.nn.utils.get_total_norm(gradients)
            if self.clip_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        if self.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, self.clip_value)
        stepped = True
        if self.scaler is None:
            self._steps[network]()
        else:
            scale = self.scaler.get_scale()
            self.scaler.step(optimizer)
            self.scaler.update()
            stepped = self.scaler.get_scale() >= scale
            if self.scaler.get_scale() < SMALLEST_SCALE:
                raise self._non_finite(loss)
        for parameter in parameters:
            parameter.grad = None
        return stepped

    def measure_layers(self, network: str) -> None:
        """Notes the gradient norm of each parameter; to be called between backward and update."""
        for parameter in self.parameters[network]:
            if parameter.grad is not None:
                norm = torch.linalg.vector_norm(parameter.grad)
                self.layers[self._names[id(parameter)]] = norm

    def end_step(self) -> None:
        """Counts a step of all networks, if the flag masked it."""
        if self._masks:
            self._masked.add_(self._flag)

    def check(self) -> int | None:
        """Reads the flag, which makes a GPU wait.

        Returns:
            None, or the number of steps that were masked: the first of them is the culprit.
        """
        return int(self._masked.item()) if self._masks and self._flag.item() else None

    def _non_finite(self, loss: Tensor) -> NonFiniteError:
        return NonFiniteError("the loss" if not bool(loss.isfinite()) else "a gradient")
