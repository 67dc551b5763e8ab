"""Long sequences read in parallel tracks, so that a recurrent network can carry its state on.

The sequence is cut into `batch_size` tracks side by side; each batch holds the next
`sequence_length` tokens of every track, and its targets are the tokens one further on. Row `i` of a
batch goes on where row `i` of the batch before ended, which is what truncated backpropagation
through time (BPTT) wants.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.loading.order import check_part, share
from zoo.data.module import Part
from zoo.data.sampling import mix_seed


class TextBatch(NamedTuple):
    """One step along the tracks.

    Attributes:
        inputs: int64 ``(batch, time)``.
        targets: the token after each of the inputs, int64 ``(batch, time)``.
        is_start: the rows do not go on from the batch before; carried state is to be reset.
    """

    inputs: Tensor
    targets: Tensor
    is_start: bool


class ContiguousLoader:
    """Walks along the tracks of a text; a sample is one row of a batch.

    In training (``shuffle``), the text is taken as a ring that each epoch enters at another place,
    so the tracks differ from epoch to epoch. Less than one window a track is left over at the end
    of an epoch, another piece of text each time; one target an epoch is not the true next one, the
    first token of the text, which follows the last.

    In evaluation, every token but the first is a target exactly once: the last window is as
    short as it must be, and the fewer than ``batch_size`` tokens that do not divide among the
    tracks follow as one more track of their own.

    Args:
        tokens: the text, int64 ``(time,)``; or another integer type where it lies in a file, of
            which then only what a batch holds is read (see `zoo.data.text.token_files`).
        batch_size: tracks side by side.
        sequence_length: tokens of each track in a batch.
        shuffle: begin at a place that depends on the epoch.
        seed: together with the epoch, all that the place depends on.
        device: where the batches are.
        part: ``(rank, world)``: give these of the tracks, ``None`` where there are none.
    """

    def __init__(
        self,
        tokens: Tensor,
        *,
        batch_size: int,
        sequence_length: int,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        part: Part = (0, 1),
    ) -> None:
        self._in_memory = tokens.dtype == torch.int64 or len(tokens) <= sequence_length
        self._tokens = tokens.to(device, torch.int64) if self._in_memory else tokens
        self._device = torch.device(device)
        self._tracks = batch_size
        self._time = sequence_length
        self._shuffle = shuffle
        self._seed = seed
        check_part(part, batch_size if shuffle else None)
        self._part = part
        num_targets = len(tokens) - (0 if shuffle else 1)
        self._length = num_targets // batch_size  # of a track
        self._rest = 0 if shuffle else num_targets % batch_size
        if shuffle:
            self._steps = self._length // sequence_length
            self._rest_steps = 0
        else:
            self._steps = -(-self._length // sequence_length)
            self._rest_steps = -(-self._rest // sequence_length)
        if len(self) == 0:
            raise ValueError(
                f"batch_size * sequence_length must be at most {max(0, num_targets)}, the tokens "
                f"of the text, not {batch_size} * {sequence_length}"
            )
        self.num_samples = self._steps * batch_size + self._rest_steps

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._steps + self._rest_steps

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Where in the text each row of the batch begins."""
        if batch >= self._steps:
            return [self._length * self._tracks + (batch - self._steps) * self._time]
        first = self._offset(epoch) + batch * self._time
        return [(first + track * self._length) % len(self._tokens) for track in range(self._tracks)]

    def batches(self, epoch: int, start: int = 0) -> Iterator[TextBatch | None]:
        if not self._shuffle:
            return self._evaluation(start)
        return self._training(epoch, start) if self._in_memory else self._gathered(epoch, start)

    def _offset(self, epoch: int) -> int:
        if not self._shuffle:
            return 0
        return mix_seed("text", self._seed, epoch) % len(self._tokens)

    def _training(self, epoch: int, start: int) -> Iterator[TextBatch]:
        offset = self._offset(epoch)
        own = share(self._tracks, self._part)
        inputs, targets = (
            self._tokens.roll(-offset - ahead)[: self._tracks * self._length]
            .view(self._tracks, self._length)[own, : self._steps * self._time]
            .reshape(-1, self._steps, self._time)
            .transpose(0, 1)
            .contiguous()  # (steps, batch, time)
            for ahead in (0, 1)
        )
        for step in range(start, self._steps):
            yield TextBatch(inputs[step], targets[step], step == 0)

    def _gathered(self, epoch: int, start: int) -> Iterator[TextBatch]:
        size = self._time + 1
        windows = self._tokens.unfold(0, size, 1)  # (len - time, time + 1), one at each place
        tracks = torch.tensor(self.indices(epoch, 0))[share(self._tracks, self._part)]  # (batch,)
        for step in range(start, self._steps):
            firsts = (tracks + step * self._time) % len(self._tokens)
            rows = windows.index_select(0, firsts.clamp(max=len(windows) - 1)).long()
            for row in (firsts >= len(windows)).nonzero():  # at most one is over the end
                places = (firsts[row] + torch.arange(size)) % len(self._tokens)
                rows[row] = self._tokens[places].long()
            yield self._batch(rows[:, :-1], rows[:, 1:], step == 0)

    def _evaluation(self, start: int) -> Iterator[TextBatch | None]:
        whole = self._tracks * self._length
        parts = []
        for begin, end, tracks in ((0, whole, self._tracks), (whole, whole + self._rest, 1)):
            if begin < end:
                inputs = self._tokens[begin:end].view(tracks, -1)
                targets = self._tokens[begin + 1 : end + 1].view(tracks, -1)
                times = range(0, inputs.shape[1], self._time)
                parts += [(inputs, targets, time) for time in times]
        for inputs, targets, time in parts[start:]:
            own, window = share(len(inputs), self._part), slice(time, time + self._time)
            if own.start == own.stop:
                yield None
            else:
                yield self._batch(inputs[own, window], targets[own, window], time == 0)

    def _batch(self, inputs: Tensor, targets: Tensor, is_start: bool) -> TextBatch:
        return TextBatch(
            inputs.to(self._device, torch.int64).contiguous(),
            targets.to(self._device, torch.int64).contiguous(),
            is_start,
        )
