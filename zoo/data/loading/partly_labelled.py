"""Training batches of which a part has labels: few labels, and many samples without."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from zoo.data.loading.tensor import Batch, TensorLoader
from zoo.data.sampling import mix_seed
from zoo.data.splits import split_indices


class PartlyLabelled:
    """Batches ``(inputs, labels, unlabelled inputs)``, each with equally many of both kinds.

    Where samples are augmented, those without a label come once more, fourth, as they are: for a
    task that wants an answer to what was not changed.

    A task that looks at inputs and labels alone trains on the labelled samples in the same order,
    and so is the control of one that uses the others too. An epoch is a pass over the unlabelled
    samples, in which the labelled ones come round as often as need be. Smaller last batches are
    left out, so that the share of a sample in a loss is always the same.

    Args:
        tensors: inputs and labels of all samples.
        labelled: how many keep their labels, with the classes in proportion; at least one sample
            has none.
        split_seed: another seed, another choice of these.
        batch_size: samples of either kind a batch; all where there are fewer.
        seed: drives order and augmentation.
        options: of :class:`~zoo.data.loading.tensor.TensorLoader`.
    """

    def __init__(
        self,
        tensors: tuple[Tensor, Tensor],
        labelled: int,
        *,
        split_seed: int,
        batch_size: int,
        seed: int = 0,
        **options: Any,
    ) -> None:
        inputs, labels = tensors
        total = len(labels)
        if not 1 <= labelled < total:
            raise ValueError(
                f"labelled must be from 1 to {total - 1}, which leaves one of the {total} training "
                f"samples without a label, not {labelled}"
            )
        share = labelled / total
        chosen, rest = split_indices(labels, (share, 1 - share), seed=split_seed)

        def loader(index: Tensor, seed: int, *tensors: Tensor, **changes: Any) -> TensorLoader:
            size = min(batch_size, len(index))
            parts = tuple(tensor[index] for tensor in tensors)
            given = {**options, "shuffle": True, "drop_last": True, **changes}
            return TensorLoader(parts, batch_size=size, seed=seed, **given)

        self.labelled = loader(chosen, seed, inputs, labels)
        own = mix_seed("unlabelled", seed)
        self.unlabelled = loader(rest, own, inputs)
        self.plain = loader(rest, own, inputs, augment=()) if options.get("augment") else None
        self.num_samples = total

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.unlabelled)

    def indices(self, epoch: int, batch: int) -> list[int]:
        """The samples of a batch, where those with labels have the first numbers."""
        first = self.labelled.num_samples
        others = (first + number for number in self.unlabelled.indices(epoch, batch))
        return [*self.labelled.indices(*self._place(epoch, batch)), *others]

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        labelled = self._labelled(*self._place(epoch, start))
        views = [loader for loader in (self.unlabelled, self.plain) if loader is not None]
        for others in zip(*(loader.batches(epoch, start) for loader in views), strict=True):
            known = next(labelled)
            given = [other[0] for other in others if other is not None]
            yield None if known is None or not given else (*known, *given)

    def _place(self, epoch: int, batch: int) -> tuple[int, int]:
        """The epoch of the labelled samples and the batch in it that go with a batch."""
        return divmod(epoch * len(self) + batch, len(self.labelled))

    def _labelled(self, epoch: int, start: int) -> Iterator[Batch | None]:
        while True:
            yield from self.labelled.batches(epoch, start)
            epoch, start = epoch + 1, 0
