"""Windows of a long sequence, each on its own, for networks that carry no state.

The sequence is cut into windows of `sequence_length` tokens that do not overlap, and a batch holds
`batch_size` of them; the targets are the tokens one further on.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.data.loading.bptt import TextBatch
from zoo.data.loading.order import BatchOrder
from zoo.data.module import Part
from zoo.data.sampling import mix_seed


class WindowLoader:
    """Batches of windows of a text; a sample is a window.

    In training (``shuffle``), each epoch begins to cut at another place within the first window and
    visits all windows in another order, both a function of seed and epoch alone. Up to two windows
    of text, before the first and after the last, are left out, another piece each time. The last
    batch holds the windows that are left.

    In evaluation the windows come in their order, and every token but the first is a target exactly
    once: what is left after the last whole window follows as a batch of its own, one shorter row.

    Args:
        tokens: the text, int64 ``(time,)``; or another integer type where it lies in a file, of
            which then only what a batch holds is read (see `zoo.data.text.token_files`).
        batch_size: windows a batch.
        sequence_length: tokens of a window.
        shuffle: other windows in another order each epoch.
        seed: together with the epoch, all that these depend on.
        drop_last: omit the last batch of an epoch if it is smaller. Not for evaluation.
        device: where the batches are.
        part: ``(rank, world)``: give this slice of each batch, ``None`` where it is empty.
    """

    def __init__(
        self,
        tokens: Tensor,
        *,
        batch_size: int,
        sequence_length: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        part: Part = (0, 1),
    ) -> None:
        self._tokens = tokens.to(device) if tokens.dtype == torch.int64 else tokens
        self._device = torch.device(device)
        self._time = sequence_length
        self._shuffle = shuffle
        self._seed = seed
        num_targets = len(tokens) - 1
        if num_targets < (sequence_length if shuffle else 1):
            raise ValueError(
                f"sequence_length must be at most {max(0, num_targets)}, the tokens of the text "
                f"but one, not {sequence_length}"
            )
        # One window less than there would be room for, so that it may begin anywhere.
        spare = sequence_length - 1 if shuffle and num_targets >= 2 * sequence_length - 1 else 0
        self._windows = (num_targets - spare) // sequence_length
        self._places = num_targets - self._windows * sequence_length + 1  # to begin at
        self._rest = 0 if shuffle else num_targets % sequence_length
        self.num_samples = self._windows + (self._rest > 0)
        self._order = BatchOrder(
            self._windows, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, part=part
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._order) + (self._rest > 0)

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Where in the text each row of the batch begins."""
        windows = [self._windows]  # the rest
        if batch < len(self._order):
            windows = self._order.indices(epoch, batch)
        offset = self._offset(epoch)
        return [offset + window * self._time for window in windows]

    def batches(self, epoch: int, start: int = 0) -> Iterator[TextBatch | None]:
        offset, whole = self._offset(epoch), self._windows * self._time
        inputs, targets = (
            self._tokens[offset + ahead : offset + ahead + whole].view(self._windows, self._time)
            for ahead in (0, 1)
        )  # (windows, time)
        for index in self._order.chunks(epoch, start, device=self._tokens.device):
            if len(index):
                yield self._batch(inputs.index_select(0, index), targets.index_select(0, index))
            else:
                yield None
        if self._rest and start < len(self):
            rest = self._tokens[whole:].unsqueeze(0)  # (1, rest + 1)
            is_first = self._order.part[0] == 0
            yield self._batch(rest[:, :-1], rest[:, 1:]) if is_first else None

    def _offset(self, epoch: int) -> int:
        if not self._shuffle:
            return 0
        return mix_seed("windows", self._seed, epoch) % min(self._time, self._places)

    def _batch(self, inputs: Tensor, targets: Tensor) -> TextBatch:
        return TextBatch(
            inputs.to(self._device, torch.int64).contiguous(),
            targets.to(self._device, torch.int64).contiguous(),
            True,
        )
