"""The interface between a learning problem and the trainer.

A task says what is learned from a batch and how it is judged; a model only computes, and the
trainer only updates. A new learning problem is a new task and leaves both of them alone.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypedDict

import torch
from torch import Tensor, nn

from zoo.tasks.prediction import Prediction, Table
from zoo.tasks.starting import start_from_data


class Metric(Protocol):
    """What a task expects of a metric: the interface of torchmetrics, whose metrics fit too.

    The metrics of the zoo also have ``merge(other)``, which adds what another one has seen, and
    ``higher_is_better``, as those of torchmetrics do; where one has several numbers, by name.
    """

    def update(self, *args: Any, **kwargs: Any) -> None: ...  # never forces a device sync

    def compute(self) -> Any: ...

    def reset(self) -> None: ...

    def to(self, device: Any) -> Any: ...


class Objective(NamedTuple):
    """A loss, what it is the mean of, and whose parameters it updates.

    Attributes:
        loss: scalar, a mean.
        count: of how many images, tokens or nodes, so that gradients accumulated over
            uneven batches equal those of one large batch.
        network: the key of :meth:`Task.networks` whose optimizer takes the step.
        terms: parts of the loss by name (reconstruction, KL, penalty) for the training curve:
            scalars on the device, detached, each a mean over ``count`` terms like the loss.
    """

    loss: Tensor
    count: Tensor | int  # type: ignore[assignment]  # hides tuple.count
    network: str = "model"
    terms: Mapping[str, Tensor] | None = None


Part = tuple[int, int]
"""Which process of how many: (rank, world)."""

Loss = tuple[Tensor, Tensor | int] | tuple[Tensor, Tensor | int, Mapping[str, Tensor]]
"""A loss, its count and, if its parts are to be seen, its terms."""


class Image:
    """An image to look at.

    Args:
        pixels: ``(3, height, width)`` in [0, 1], or what draws them, which is called only if
            somebody looks.
    """

    def __init__(self, pixels: Tensor | Callable[[], Tensor]) -> None:
        self._pixels = pixels

    @property
    def pixels(self) -> Tensor:
        """The image, ``(3, height, width)``."""
        return self._pixels if isinstance(self._pixels, Tensor) else self._pixels()

    def png(self) -> bytes:
        """The image as a PNG file."""
        from PIL import Image as Pillow

        levels = self.pixels.clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
        file = io.BytesIO()
        Pillow.fromarray(levels.permute(1, 2, 0).numpy()).save(file, format="PNG")
        return file.getvalue()


class Text(NamedTuple):
    """A text to read, as it is."""

    text: str


class Vectors(NamedTuple):
    """Vectors to look at from all sides: ``(count, dim)``, and a label for each."""

    vectors: Tensor
    labels: list[str]


Shown = Image | Text | Table | Vectors
"""What there is to look at; a table is for what is too long for a curve."""


class TaskOptions(TypedDict, total=False):
    """What a configuration may say of any task, besides the arguments of its target."""

    features: str | None
    teacher: str | None


class Task:
    """A learning problem: losses, metrics, and samples to look at.

    An ordinary task writes :meth:`loss` and :meth:`evaluate`. A task with several updates a batch
    overrides :meth:`objectives` and yields them in the order of its algorithm: the trainer takes
    the optimizer step of one objective before it asks for the next, so the code after a ``yield``
    sees updated parameters. Precision is the trainer's too: its autocast surrounds every such
    request, hence the forward pass and the loss but not the step. For the gradients to exist, no
    ``yield`` stands inside ``torch.no_grad()``. Where batches are accumulated, the trainer runs
    their objectives side by side, so every batch must yield the same networks in the same order: a
    task whose steps are not all alike counts them in :meth:`after_update`.
    A task with several networks announces each objective with :meth:`turn`.

    Args:
        model: what is trained. Networks that train together are named parts of one model.

    Attributes:
        monitor: the metric that selects checkpoints, unless the trainer is told otherwise.
        mode: whether the monitored metric is better when small or when large.
        unit: what the loss is a mean over, for rates.
        metrics: what :meth:`evaluate` updates, by name.
        predicts: the kind of what :meth:`predict` returns; None for a task that predicts nothing.
        given: arguments of the constructor that the run hands over besides the model.
        changeable: arguments of the constructor that a stored run may change.
        output_kind: what the model returns, so that several models' outputs can be joined:
            ``logits`` with the classes in the last dimension, ``values``, or ``normals`` (a mean
            and the logarithm of a deviation for each value); None: they cannot be.
        update_every: networks that are not updated in every step, by name: in every how many-th.
        differentiates: whether a loss holds a derivative itself (a gradient penalty).
    """

    monitor: str = "loss"
    mode: Literal["min", "max"] = "min"
    unit: str = "samples"
    predicts: ClassVar[type[Prediction] | None] = None
    given: ClassVar[tuple[str, ...]] = ()
    changeable: ClassVar[tuple[str, ...]] = ()
    output_kind: Literal["logits", "values", "normals"] | None = None
    update_every: Mapping[str, int] = MappingProxyType({})
    differentiates: bool = False

    announced: str | None = None
    """Whose turn it is, see :meth:`turn`."""
    _waiting: Sequence[nn.Parameter] = ()  # what has no gradients until it is over

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.metrics: dict[str, Metric] = {}

    @classmethod
    def without_effect(cls, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Arguments of the constructor that others of them leave without effect, and why."""
        return {}

    def networks(self) -> dict[str, nn.Module]:
        """The networks by name; each has an optimizer of its own."""
        return {"model": self.model}

    @contextmanager
    def turn(self, network: str) -> Iterator[None]:
        """Announces whose objective is computed next; surrounds its forward passes.

        From here to the update nothing but this network's parameters wants a gradient, whatever
        the loss passes through. They are switched off before the forward pass, since FSDP2 gives
        no gradient to anybody where they are switched off after it. Objectives of several batches
        that advance side by side announce the same turn one after the other.

        Args:
            network: its key in :meth:`networks`.

        Raises:
            ValueError: there is no such network.
        """
        if self.announced != network:
            networks = self.networks()
            if network not in networks:
                raise ValueError(f"there is no network {network!r}, only {', '.join(networks)}")
            self.end_turn()
            own = set(map(id, networks[network].parameters()))
            self._waiting = [
                p for p in self.model.parameters() if p.requires_grad and id(p) not in own
            ]
            for parameter in self._waiting:
                parameter.requires_grad_(False)
            self.announced = network
        try:
            yield
        except BaseException:
            self.end_turn()
            raise

    def end_turn(self) -> None:
        """Gives the other networks' parameters back their gradients; the trainer calls it."""
        for parameter in self._waiting:
            parameter.requires_grad_(True)
        self.announced, self._waiting = None, []

    def prepare(self, batches: Iterable[Any]) -> None:
        """Looks once at the training batches, where a task or its model needs that; most do not.

        The trainer calls this before the first step of a fresh run and never on resume, so
        whatever is kept goes through :meth:`state_dict`. It may set weights to begin with, as a
        model does that has ``init_from_data``.
        """
        start_from_data(self.model, map(inputs_of, batches))

    def loss(self, batch: Any) -> Loss:
        """The loss of a batch, and of how many images, tokens or nodes it is the mean.

        Where nothing in a batch counts, both are 0, see :func:`mean_over`.
        A third entry may name parts of the loss, see :class:`Objective`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither loss nor objectives")

    def objectives(self, batch: Any) -> Iterator[Objective]:
        """The objectives of a batch in the order of their updates."""
        loss, count, *terms = self.loss(batch)
        yield Objective(loss, count, terms=terms[0] if terms else None)

    def every_objective(self, batch: Any) -> Iterator[Objective]:
        """What there may be in a step, for a rehearsal: more than in every step of some tasks."""
        return self.objectives(batch)

    def after_update(self, network: str) -> None:
        """Follows each update of a network: the trainer calls it, once for a whole window.

        Args:
            network: its key in :meth:`networks`.
        """

    def evaluate(self, batch: Any) -> None:
        """Updates the metrics. The trainer provides evaluation mode and a fixed random state."""
        raise NotImplementedError(f"{type(self).__name__} does not define evaluate")

    def predict(self, batch: Any) -> Prediction:
        """What a user wants back for a batch, or for its inputs alone."""
        raise NotImplementedError(f"{type(self).__name__} does not define predict")

    def every_metric(self) -> dict[str, Metric]:
        """All that :meth:`evaluate` updates, also in parts of the task, by some name."""
        return self.metrics

    def reset(self) -> None:
        """Forgets the previous evaluation."""
        for metric in self.metrics.values():
            metric.reset()

    def compute(self) -> dict[str, float]:
        """The metrics that are numbers, by name; a metric may also return several in a dictionary.

        Other values (a matrix, say) are for :meth:`show`.
        """
        values: dict[str, float] = {}
        for name, metric in self.metrics.items():
            value = metric.compute()
            named = value if isinstance(value, dict) else {name: value}
            values |= {key: float(entry) for key, entry in named.items() if _is_number(entry)}
        return values

    def directions(self) -> dict[str, Literal["min", "max"]]:
        """Whether less or more of a number is better, by name, for all that say it."""
        found: dict[str, bool | None] = {}
        for name, metric in self.metrics.items():
            higher = getattr(metric, "higher_is_better", None)
            found |= higher if isinstance(higher, Mapping) else {name: higher}
        known = {name: higher for name, higher in found.items() if higher is not None}
        return {n: "max" if higher else "min" for n, higher in known.items()} | {
            self.monitor: self.mode
        }

    def to(self, device: torch.device | str) -> Self:
        """Moves the metrics to the device where the batches will be."""
        for metric in self.metrics.values():
            metric.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on besides the networks: tensors and plain Python."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but was given {sorted(state)}")

    def state_of_part(self, states: Sequence[dict[str, Any]], part: Part) -> dict[str, Any]:
        """What one of several processes goes on with, where they were another number before.

        A task that carries something for each sample of a batch overrides this.

        Args:
            states: what each of those processes had, in the order of their ranks.
            part: ``(rank, world)`` of this one.
        """
        return states[part[0] % len(states)]

    def next_steps(self, data: Any) -> list[str]:
        """What else a finished run is good for: programs to call, ``{run}`` for the run folder.

        Args:
            data: the data module of the run.
        """
        return ["evaluate.py run={run} predict=<table>"] if hasattr(data, "read_inputs") else []

    def example_inputs(self, batch: Any) -> tuple[Any, ...]:
        """Arguments of the model for a batch: all but its targets, for tracing its graph too."""
        return (inputs_of(batch),)

    def targets_of(self, batch: Any) -> Any:
        """What the model's outputs for a batch are compared with."""
        return batch[1]

    def show_inputs(self, batch: Any) -> dict[str, Image]:
        """What a batch's inputs look like, by name."""
        return {}

    def show(self) -> dict[str, Shown]:
        """What there is to look at after an evaluation, by name.

        Asked while the networks are in evaluation mode, without gradients.
        """
        return {}


def inputs_of(batch: Any) -> Any:
    """The inputs of a batch, which come first in it, or the batch itself if it is inputs alone."""
    return batch if isinstance(batch, Tensor) else batch[0]


def mean_over(total: Tensor, count: Tensor) -> Tensor:
    """The mean of ``count`` terms; 0 of none, since what holds nothing that counts has no say."""
    return total / torch.where(count > 0, count, 1)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every submodule has the mode it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.ndim == 0)


def require_parts(model: nn.Module, *names: str) -> None:
    """Makes sure that a model has what a task asks it for.

    Raises:
        TypeError: it lacks some of it.
    """
    if missing := [name for name in names if not hasattr(model, name)]:
        raise TypeError(
            f"model must have {', '.join(names)}; {type(model).__name__} lacks {', '.join(missing)}"
        )
