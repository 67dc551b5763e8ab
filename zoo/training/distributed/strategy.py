"""How many processes train one model, and what each of them holds of it.

The trainer and its updater ask a strategy where it matters that they are not alone: for the sum of
the counts, whether anybody's gradient is not finite, for the whole state. Reducing gradients is
torch's: DistributedDataParallel for replicas, FSDP2 for shards. Alone, all of it is nothing.

With several processes each has its part of every batch. A loss is multiplied by its own count, the
gradients are summed over the processes and divided by the true count of all, so that uneven parts
equal one large batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.tasks.task import Metric, Objective, Task
from zoo.training.optimizers import load_optimizer


class Strategy:
    """One process: there is nothing to share.

    Attributes:
        rank: number of this process.
        world: number of processes.
        scale: what a loss is multiplied by before backward, where the engine takes the mean of the
            gradients over the processes instead of their sum.
        is_sharded: whether a process holds a part of each parameter.
    """

    rank = 0
    world = 1
    scale = 1
    is_sharded = False

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def main_first(self) -> AbstractContextManager[None]:
        """Lets the others of a machine wait until one process is through the block."""
        return nullcontext()

    def build(self, make: Callable[[], nn.Module], device: torch.device | str = "cpu") -> nn.Module:
        """Makes a network on a device; one for shards is moved there by `wrap`, piece by piece."""
        return make().to(device)

    def wrap(self, task: Task, device: torch.device | None = None) -> None:
        """Prepares the networks, in place; to be called before optimizers are made of them.

        Args:
            task: with the networks.
            device: where shards are to be; None: where the networks are.
        """

    def prepare(self, task: Task, *, differentiates: bool, reaches_all: bool) -> str:
        """Chooses how gradients are reduced; to be called before the first step.

        Args:
            task: what is learned.
            differentiates: whether the task itself differentiates inside its objectives.
            reaches_all: whether a loss has a gradient for every parameter that is trained.

        Returns:
            What was chosen, in a line for the log; empty where there is nothing to choose.

        Raises:
            ValueError: the task cannot be trained like this.
        """
        return ""

    def begin_step(self) -> None:
        """Before the first forward pass of a step: all take over the main process's buffers."""

    def evaluating(self, task: Task) -> AbstractContextManager[None]:
        """Has at hand what an evaluation needs of the networks."""
        return nullcontext()

    def needs_all(self, error: RuntimeError) -> bool:
        """Whether an evaluation failed for want of weights, which it has from now on."""
        return False

    def ask(self, run: Iterator[Objective], *, is_first: bool, is_last: bool) -> Objective | None:
        """The next objective of a batch, if there is one.

        Args:
            run: the objectives of a batch.
            is_first: whether none has been asked for yet.
            is_last: whether the batch is the last of those whose gradients are accumulated.
        """
        return next(run, None)

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sums the gradients over the processes, where backward has not done so."""

    def local(self, gradients: list[Tensor]) -> list[Tensor]:
        """What this process holds of some gradients."""
        return gradients

    def whole(self, value: Tensor) -> Tensor:
        """A number that is computed from what all processes hold."""
        return value

    def own(self, shown: dict[str, Any]) -> dict[str, Any]:
        """What a task shows, with nothing in it that goes when gathered weights go."""
        return shown

    def total(self, *values: Tensor | int) -> list[Any]:
        """The sums of some numbers over the processes."""
        return list(values)

    def any(self, flag: Tensor) -> None:
        """Raises a flag that any process has raised, in place."""

    def agree(self, request: int) -> int:
        """The largest request of all processes, which all of them learn in the same step.

        With several processes it is that of the call before, so that nobody has to wait for it.
        """
        return request

    def gather(self, value: Any) -> list[Any]:
        """What each process has, in the order of their ranks; empty but in the main process."""
        return [value]

    def share(self, value: Any) -> Any:
        """What the main process has, in all of them."""
        return value

    def share_state(self, state: dict[str, Any] | None) -> dict[str, Any] | None:
        """A checkpoint that the main process has read, in all of them; shards as their parts."""
        shared: dict[str, Any] | None = self.share(state)
        return shared

    def merge(self, metrics: Mapping[str, Metric]) -> None:
        """Lets every metric have seen what those of all processes have, in place."""

    def explain(self, error: Exception) -> None:
        """Raises another error where one hides that several processes are what it is about."""

    def align(self, model: nn.Module) -> None:
        """Gives every process the buffers of the main process, in place."""

    def gather_state(self, module: nn.Module) -> dict[str, Any]:
        """The whole state of a module, as if one process had it."""
        return module.state_dict()

    def gather_tensors(self, state: dict[str, Any]) -> dict[str, Any]:
        """A nested state with whole tensors in it."""
        return state

    def write_shards(
        self, state: dict[str, Any], folder: Path | None
    ) -> tuple[dict[str, Any], Future[dict[str, int]] | None]:
        """Begins to write the shards of a state, where there are any, in the background.

        Args:
            state: of the run, as `RunState.state_dict(whole=False)` gives it.
            folder: where to, which is not there yet; only the main process needs to know it.

        Returns:
            The state without them, and what will give the checksums of the files (in the main
            process); None where nothing is written.
        """
        return state, None

    def load_state(self, module: nn.Module, state: dict[str, Any]) -> None:
        """Restores what `gather_state` gave, or parts of it that `share_state` has given."""
        module.load_state_dict(state)

    def divided(self, tensors: dict[Any, Any], like: Mapping[Any, Tensor]) -> dict[Any, Any]:
        """Whole tensors as this process holds others of the same names."""
        return tensors

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Restores the state of an optimizer, whole tensors or parts in it."""
        load_optimizer(optimizer, state)


class OneProcess(Strategy):
    """One process: the default, which costs nothing."""
