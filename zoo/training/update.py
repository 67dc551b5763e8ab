"""From losses to updated weights: scaling, dividing, checking, clipping, stepping.

The order of an update: unscale, divide by the count, check finite, clip, step. The check comes
before clipping because a clipped infinity looks finite. Where nothing counts in the batches of an
update (all their targets are ignored ones), weights and optimizer stay as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from zoo.tasks.task import Objective
from zoo.training.direct_step import DirectStep
from zoo.training.distributed.strategy import OneProcess, Strategy
from zoo.training.optimizers import prepare_for_skips, takes_closure, takes_found_inf

SMALLEST_SCALE = 2.0**-14
"""An fp16 loss scale below this no longer protects anything: the run is stopped."""


class NonFiniteError(RuntimeError):
    """A loss or gradient became NaN or infinite; the weights are those of the step before."""


def non_finite(
    what: str, step: int, epoch: int, batch: int, samples: Sequence[int]
) -> NonFiniteError:
    """The error that says where to look."""
    names = ", ".join(map(str, samples[:64])) + (", ..." if len(samples) > 64 else "")
    return NonFiniteError(
        f"{what} is not finite at step {step} (epoch {epoch}, batch {batch}, training samples "
        f"{names}); the weights are those before that step. Try a smaller optimizer.lr, "
        "schedule.warmup_steps, trainer.clip_norm=1 or trainer.precision=fp32, and look at these "
        "samples"
    )


def _check(tensors: list[Tensor], flag: Tensor, one: Tensor) -> None:
    """Raises the flag if a tensor is not finite.

    It is GradScaler's own kernel: one pass, and the device need not be waited for. What it would
    multiply by is 1, since it looks before it multiplies.
    """
    torch._amp_foreach_non_finite_check_and_unscale_(tensors, flag, one)


def _is_at_hand(norm: Tensor) -> bool:
    """Whether a norm is whole, and nothing has to be waited for to look at it."""
    return type(norm) is Tensor and norm.is_cpu


class Updater:
    """Takes the optimizer steps of a task's networks.

    A flag on the device rises with the first loss or gradient that is not finite. On a CPU it is
    checked in every update. A GPU is not made to wait for that: fused optimizers skip every update
    while the flag is up, and it is read with the training curve; only with optimizers that cannot
    skip is it checked in every update there too. With fp16 the loss scaler handles its own
    overflows.

    Args:
        model: all networks together.
        optimizers: one for each network.
        device: where the parameters are.
        dtype: autocast type; None: no autocast.
        clip_norm: largest global norm of a network's gradient.
        clip_value: largest magnitude of a gradient's element.
        layer_gradients: whether to measure the gradient norm of each parameter too.
        strategy: which processes share the work.

    Attributes:
        norms: global gradient norm of each network, before clipping, of the last update that was
            asked to measure it (or that clipped), if the last step had one.
        layers: gradient norm of each parameter by name, likewise, if wanted.
        masked: updates that were masked on the device because nothing counted in them.
        empty: those of which that was known at once.
        searches: whether an optimizer asks for the loss several times a step.
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
        layer_gradients: bool = False,
        strategy: Strategy | None = None,
    ) -> None:
        self.strategy = strategy or OneProcess()
        self.layer_gradients = layer_gradients
        self.optimizers = dict(optimizers)
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.autocast: Any = torch.autocast(device.type, dtype=dtype) if dtype else nullcontext()
        self.scaler = torch.amp.GradScaler(device.type) if dtype is torch.float16 else None
        self.parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in self.optimizers.items()
        }
        for optimizer in self.optimizers.values():
            prepare_for_skips(optimizer)
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])  # The name is torch's.
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._one = torch.ones((), device=device)
        self._flag = torch.zeros((), device=device)
        self._skipped_steps = torch.zeros((), device=device)
        # Of a shard the fused kernels cannot take a flag that is not a shard.
        at_once = device.type == "cpu" or self.scaler is not None or self.strategy.is_sharded
        self._checked_at_once = {
            name for name, o in self.optimizers.items() if at_once or not takes_found_inf(o)
        }
        self._is_checked_later = len(self._checked_at_once) < len(self.optimizers)
        on_cpu = device.type == "cpu"
        self._steps = {name: DirectStep(o) for name, o in self.optimizers.items() if on_cpu}
        self.searches = any(map(takes_closure, self.optimizers.values()))
        self.empty, self.masked = 0, torch.zeros((), device=device)
        self.norms: dict[str, Tensor] = {}
        self.layers: dict[str, Tensor] = {}

    def set_rates(
        self,
        factors: Mapping[str, float],
        of_groups: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    ) -> None:
        """Sets every learning rate to its own value times the factor of its network.

        Args:
            factors: by network.
            of_groups: by the name of a group of parameters and by network, where it has its own.
        """
        # Always asked for anew: loading a state gives an optimizer other groups.
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                own = of_groups.get(group.get("name", ""), factors)
                group["lr"] = group["initial_lr"] * own[name]

    def rates(self) -> dict[str, dict[str, float]]:
        """The learning rate of each network's parameters, by the name of their group.

        Those in no group of the optimizer's `groups` have the name ``""``. Where parameters of one
        name have several rates, it is that of the first.
        """
        found: dict[str, dict[str, float]] = {name: {} for name in self.optimizers}
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                found[name].setdefault(group.get("name", ""), group["lr"])
            found[name].setdefault("", optimizer.param_groups[0]["lr"])  # All are in groups.
        return found

    def backward(self, loss: Tensor, network: str) -> None:
        """Adds the gradient of a loss to whatever wants one: the network's parameters.

        Those of the other networks want none while it is this network's turn.
        """
        if not loss.requires_grad:
            raise RuntimeError(
                f"the loss of {network!r} has no gradient: a task must not yield inside "
                "torch.no_grad(), and something in the network must be trainable"
            )
        if self.strategy.scale != 1:
            loss = loss * self.strategy.scale
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def update(
        self,
        network: str,
        loss: Tensor,
        count: Tensor | float | None = None,
        *,
        measure: bool = False,
        is_empty: Tensor | bool = False,
    ) -> bool:
        """Takes one network's step with the gradients that have gathered, and clears them.

        Args:
            network: its name.
            loss: what the gradients are of, detached; becomes the mean, in place.
            count: what to divide loss and gradients by, where they are sums.
            measure: whether to note the gradient norms.
            is_empty: whether nothing counts in these batches: then nothing changes.

        Returns:
            Whether the step is over; one that fp16 scaling skips is not.

        Raises:
            NonFiniteError: loss or gradient is not finite, where the flag is checked at once.
        """
        optimizer, parameters = self.optimizers[network], self.parameters[network]
        at_once = network in self._checked_at_once
        if isinstance(is_empty, Tensor) and (at_once or is_empty.is_cpu):
            is_empty = bool(is_empty)
        if is_empty is True:
            self.empty += 1
            loss.zero_()  # 0 / 0 in some tasks.
            for parameter in parameters:
                parameter.grad = None
            return True
        self.strategy.reduce(parameters)
        gradients = [p.grad for p in parameters if p.grad is not None]
        self._divide(network, gradients, loss, count)
        norm = None
        if measure or self.clip_norm is not None:
            norm = self._measure(network, gradients, layers=measure)
        self._require_finite(network, gradients, loss, norm)
        if not at_once:
            self._mask(optimizer, is_empty)
        if self.clip_norm is not None and norm is not None:
            self._clip(network, gradients, norm, self.clip_norm)
        if self.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, self.clip_value)
        stepped = True
        if self.scaler is None:
            self._steps.get(network, optimizer.step)()
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

    def search(
        self, network: str, evaluate: Callable[[], Objective], *, measure: bool = False
    ) -> Objective:
        """Takes one step of an optimizer that itself asks for losses and gradients (L-BFGS).

        It looks at several points along a direction; where the step begins and where it ends,
        everything must be finite.

        Args:
            network: its name.
            evaluate: the objective at the weights of the moment.
            measure: whether to note the gradient norms.

        Returns:
            The objective where the step began, detached.

        Raises:
            NonFiniteError: loss or gradient is not finite where the step began, or loss or weights
                where it ended, in which case the weights are put back.
        """
        parameters = self.parameters[network]
        before = [parameter.detach().clone() for parameter in parameters]
        first: list[Objective] = []

        def closure() -> float:
            for parameter in parameters:
                parameter.grad = None
            objective = evaluate()
            self.backward(objective.loss, network)
            loss = objective.loss.detach()
            if not first:
                first.append(objective._replace(loss=loss.clone()))
                gradients = [p.grad for p in parameters if p.grad is not None]
                self._divide(network, gradients, loss, None)
                self._require_finite(network, gradients, loss)
                if measure:
                    self._measure(network, gradients, layers=True)
            return loss.item()

        self.optimizers[network].step(closure)
        for parameter in parameters:
            parameter.grad = None
        _check([evaluate().loss.detach(), *(p.detach() for p in parameters)], self._flag, self._one)
        if self._flag.item():
            with torch.no_grad():
                torch._foreach_copy_(parameters, before)
            raise NonFiniteError("the loss to which L-BFGS came")
        return first[0]

    def _measure(self, network: str, gradients: list[Tensor], *, layers: bool) -> Tensor:
        """Notes the norm of a network's gradient, which it returns, and of its parameters'."""
        norm = torch.nn.utils.get_total_norm(gradients)
        self.norms[network] = self.strategy.whole(norm)
        if layers and self.layer_gradients:
            self._measure_layers(self.parameters[network])
        return norm

    def _divide(
        self, network: str, gradients: list[Tensor], loss: Tensor, count: Tensor | float | None
    ) -> None:
        """Makes means of sums."""
        tensors = [*self.strategy.local(gradients), loss]
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizers[network])
        if count is not None:
            # On the device and of its type, as the fast kernel wants it.
            torch._foreach_div_(tensors, count * self._one if isinstance(count, Tensor) else count)

    def _require_finite(
        self, network: str, gradients: list[Tensor], loss: Tensor, norm: Tensor | None = None
    ) -> None:
        """Looks whether loss and gradients are finite; a norm that is tells it of all gradients."""
        if self.scaler is not None:
            return
        if norm is None or not _is_at_hand(norm) or not bool((norm + loss).isfinite()):
            _check([*self.strategy.local(gradients), loss], self._flag, self._one)
        self.strategy.any(self._flag)
        if network in self._checked_at_once and self._flag.item():
            raise self._non_finite(loss)

    def _clip(self, network: str, gradients: list[Tensor], norm: Tensor, most: float) -> None:
        """Scales gradients whose norm is larger than allowed down to it, as torch does."""
        if not _is_at_hand(norm):
            torch.nn.utils.clip_grads_with_norm_(self.parameters[network], most, norm)
        elif (scale := most / (norm + 1e-6)) < 1:
            torch._foreach_mul_(gradients, scale)

    def _mask(self, optimizer: torch.optim.Optimizer, is_empty: Tensor | bool) -> None:
        """Tells the kernel of an optimizer what makes it skip its update."""
        flag = self._flag
        if isinstance(is_empty, Tensor):
            flag = torch.maximum(flag, is_empty.to(flag.dtype))
            self.masked.add_(is_empty)
        optimizer.found_inf = flag  # type: ignore[attr-defined]

    def has_been_empty(self) -> bool:
        """Whether nothing counted in some update so far, which makes a GPU wait."""
        return self.empty > 0 or (self._is_checked_later and bool(self.masked.item()))

    def _measure_layers(self, parameters: Sequence[nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is not None:
                norm = self.strategy.whole(torch.linalg.vector_norm(parameter.grad))
                self.layers[self._names[id(parameter)]] = norm

    def zero_weights(self) -> dict[str, Tensor]:
        """The share of exact zeros among the weights of each network that L1 draws there."""
        shares = {}
        for name, optimizer in self.optimizers.items():
            drawn = [p for g in optimizer.param_groups if g.get("l1") for p in g["params"]]
            if drawn:
                zeros = [self.strategy.whole((p.detach() == 0).sum()) for p in drawn]
                shares[name] = torch.stack(zeros).sum() / sum(p.numel() for p in drawn)
        return shares

    def begin_step(self) -> None:
        """Forgets what was measured in the step before, in which other networks had their turn."""
        self.norms.clear()
        self.layers.clear()

    def end_step(self) -> None:
        """Counts a step of all networks, if the flag made the optimizers skip it."""
        if self._is_checked_later:
            self._skipped_steps.add_(self._flag)

    def check(self) -> int | None:
        """Reads the flag, which makes a GPU wait.

        Returns:
            None, or the number of steps that were skipped: the first of them is the culprit.
        """
        if not self._is_checked_later or not self._flag.item():
            return None
        return int(self._skipped_steps.item())

    def _non_finite(self, loss: Tensor) -> NonFiniteError:
        return NonFiniteError("the loss" if not bool(loss.isfinite()) else "a gradient")
