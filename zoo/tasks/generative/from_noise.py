"""What tasks share whose model turns noise into samples in many small steps.

Classes are optional: a model that knows some is trained with them left out now and then, and the
difference that a class makes is exaggerated in sampling (classifier-free guidance, Ho and Salimans,
2022, https://arxiv.org/abs/2207.12598).
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.figures.grids import are_images, enlarge, image_grid
from zoo.tasks.generative.base import GRID, Generative, sample_grid
from zoo.tasks.task import Image, Shown, evaluation_mode, inputs_of

FRAMES = 8
"""States on the way from noise that a strip shows, of as many samples."""
MOST_COLUMNS = 16  # as many classes as a grid shows side by side


class FromNoise(Generative):
    r"""A model of noisy samples, of how noisy they are, and perhaps of their classes.

    The model is called with samples, times and, if its ``num_classes`` is not None, labels, among
    which ``num_classes`` stands for no class; its ``sample_shape`` is that of a sample. A subclass
    defines :meth:`steps`.

    Args:
        model: the network.
        sampling_steps: steps from noise to a sample.
        label_dropout: probability of training without a sample's class.
        guidance: how much of the difference that a class makes is added in sampling to what the
            model says without it: 0 draws from all classes alike, 1 from the class, and more
            exaggerates it.

    Raises:
        TypeError: the model does not say what its samples are like.
        ValueError: an argument is outside its range, or is about classes that the model lacks.
    """

    changeable: ClassVar[tuple[str, ...]] = ("sampling_steps", "guidance")

    def __init__(
        self,
        model: nn.Module,
        *,
        sampling_steps: int = 50,
        label_dropout: float = 0.1,
        guidance: float = 1.0,
    ) -> None:
        super().__init__(model)
        shape: Any = getattr(model, "sample_shape", None)
        if shape is None:
            raise TypeError(
                f"model must have sample_shape, the shape of one sample; "
                f"{type(model).__name__} lacks it"
            )
        if sampling_steps < 1:
            raise ValueError(f"sampling_steps must be at least 1, not {sampling_steps}")
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout must be from 0 to 1, not {label_dropout}")
        if guidance < 0:
            raise ValueError(f"guidance must be at least 0, not {guidance}")
        classes: Any = getattr(model, "num_classes", None)
        if classes is None and guidance != 1:
            raise ValueError(
                f"guidance={guidance} needs a model that knows classes: set model.num_classes"
            )
        self.sample_shape: tuple[int, ...] = tuple(shape)
        self.num_classes: int | None = classes
        self.sampling_steps = sampling_steps
        self.label_dropout, self.guidance = label_dropout, guidance

    def steps(
        self, x: Tensor, labels: Tensor | None, generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        """The states from noise to samples, the last of which are the samples.

        Args:
            x: standard normal noise, ``(batch, *)``.
            labels: int64 ``(batch,)``; None: no class.
            generator: of further random numbers, on the CPU; None: as few as the method needs.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define steps")

    def labels_of(self, batch: Any) -> Tensor | None:
        """The classes of a batch if the model knows classes."""
        if self.num_classes is None:
            return None
        if isinstance(batch, Tensor) or len(batch) < 2:
            raise ValueError("a model with num_classes needs batches of samples and labels")
        labels: Tensor = batch[1]
        if labels.ndim != 1 or labels.is_floating_point():
            raise ValueError(
                f"labels must be one whole number a sample, not {labels.dtype} of shape "
                f"{tuple(labels.shape)}: switch data.mixup and data.cutmix off"
            )
        return labels

    def training_labels(self, batch: Any) -> Tensor | None:
        """The same, some of them left out at random."""
        labels = self.labels_of(batch)
        if labels is None or self.label_dropout == 0:
            return labels
        left_out = torch.rand(len(labels), device=labels.device) < self.label_dropout
        return labels.masked_fill(left_out, self.num_classes or 0)

    def output(self, x: Tensor, times: Tensor, labels: Tensor | None) -> Tensor:
        """What the model says, without guidance."""
        found = self.model(x, times) if self.num_classes is None else self.model(x, times, labels)
        if found.shape != x.shape:
            raise ValueError(
                f"the model must return the shape of its input {tuple(x.shape)}, "
                f"not {tuple(found.shape)}"
            )
        return found.to(x.dtype)

    def guided(self, x: Tensor, times: Tensor, labels: Tensor | None) -> Tensor:
        """What the model says, the part of the class exaggerated."""
        if labels is None or self.guidance == 0:
            return self.output(x, times, None)
        if self.guidance == 1:
            return self.output(x, times, labels)
        nobody = torch.full_like(labels, self.num_classes or 0)
        both = torch.cat([x, x]), torch.cat([times, times]), torch.cat([nobody, labels])
        without, given = self.output(*both).chunk(2)
        return without + self.guidance * (given - without)

    def draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise, ``(count, *)``."""
        noise = torch.randn(count, *self.sample_shape, generator=generator)
        return noise.to(next(self.model.parameters()))

    def decode(self, latents: Tensor) -> Tensor:
        """The samples, of no class, that noise leads to without any further random number."""
        return self._last(latents, None, None)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Samples; of a model that knows classes, of each class in turn."""
        latents = self.draw_latents(count, generator)
        return self._last(latents, self.each_class(count), generator)

    def each_class(self, count: int) -> Tensor | None:
        """The classes that drawn samples are of, if the model knows classes: each in turn."""
        if self.num_classes is None:
            return None
        return torch.arange(count, device=self.device) % self.num_classes

    def show(self) -> dict[str, Shown]:
        """``samples``, and of images ``from_noise``, the way of some of them from left to right."""
        if len(self.sample_shape) != 3:
            return super().show()
        columns = min(self.num_classes or GRID // 8, MOST_COLUMNS)
        generator = torch.Generator().manual_seed(0)
        with evaluation_mode(self.model):
            noise = self.draw_latents(GRID // 8 * columns, generator)
            x, states = noise, [noise[:FRAMES]]
            for state in self.steps(noise, self.each_class(len(noise)), generator):
                x = state
                states.append(x[:FRAMES].clone())  # not a view, which would keep the whole batch
        if not are_images(x):
            return {}
        way = [states[round(i * (len(states) - 1) / FRAMES)] for i in range(FRAMES + 1)]
        low, high = x.amin(), x.amax()  # Noise goes beyond what samples have.
        frames = (torch.stack(way, dim=1).flatten(0, 1) - low) / (high - low).clamp_min(1e-12)
        strip = image_grid(enlarge(frames.clamp(0, 1)), columns=FRAMES + 1)
        return {"samples": Image(sample_grid(x, columns=columns)), "from_noise": Image(strip)}

    def example_inputs(self, batch: Any) -> tuple[Any, ...]:
        x = inputs_of(batch)
        labels = self.labels_of(batch)
        times = torch.ones(len(x), device=x.device)
        return (x, times) if labels is None else (x, times, labels)

    def _last(self, x: Tensor, labels: Tensor | None, generator: torch.Generator | None) -> Tensor:
        for state in self.steps(x, labels, generator):
            x = state
        return x


def check_samples(x: Tensor, shape: tuple[int, ...]) -> None:
    """Refuses samples of another shape than the model's.

    Raises:
        ValueError: naming both.
    """
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"samples must be {shape}, as the model's are, not {(*x.shape[1:],)}")


def spread_times(count: int, device: torch.device) -> Tensor:
    """Times in [0, 1), one in each of ``count`` equal parts, in random order: ``(count,)``.

    Means over a batch vary much less than with times drawn one by one.
    """
    places = torch.randperm(count, device=device) + torch.rand(count, device=device)
    return (places / count).clamp_max(1 - 1e-6)
