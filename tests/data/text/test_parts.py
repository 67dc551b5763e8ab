"""Parts of several processes are slices of the batches of one; a small last batch may go."""

import pytest
import torch
from torch.nn import functional as F

from zoo.data.text.labelled_text import LabelledText
from zoo.data.text.parallel_text import ParallelText
from zoo.data.text.skip_gram import WordWindows
from zoo.data.text.text import WholeText

LINES = [f"the {'very ' * (n % 4)}quick fox no {n % 7} runs" for n in range(41)]


class Small(WholeText):
    def text(self):
        return "\n".join(LINES * 3)


def labelled(folder, **options):
    rows = [f"{line},{n % 2}" for n, line in enumerate(LINES)]
    (folder / "t.csv").write_text("\n".join(["text,label", *rows]))
    return LabelledText(train="t.csv", root=str(folder), batch_size=8, **options)


def parallel(folder, **options):
    for name in ("a", "b"):
        (folder / name).write_text("\n".join(LINES) + "\n")
    return ParallelText(("a", "b"), root=str(folder), min_frequency=1, **options)


MODULES = {
    "tracks": lambda folder: Small(batch_size=5, sequence_length=9),
    "windows": lambda folder: Small(batch_size=5, sequence_length=9, order="windows"),
    "labelled": labelled,
    "parallel": lambda folder: parallel(folder, batch_size=7),
    "tokens_per_batch": lambda folder: parallel(folder, batch_size=None, tokens_per_batch=60),
    **{
        f"{kind} {output}": lambda folder, kind=kind, output=output: WordWindows(
            Small(), kind=kind, output=output, batch_size=30, min_frequency=1
        )
        for kind in ("skip_gram", "cbow")
        for output in ("negative_sampling", "hierarchical_softmax")
    },
}


def batches(make, split, epoch, part):
    module = make()
    module.setup(seed=3, part=part)
    return list(module.batches(split, epoch))


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", MODULES)
def test_parts_together_are_the_batch(name, split, world, tmp_path):
    def make():
        return MODULES[name](tmp_path)

    whole = batches(make, split, 1, (0, 1))
    parts = [batches(make, split, 1, (rank, world)) for rank in range(world)]
    assert {len(part) for part in parts} == {len(whole)}
    for batch, *slices in zip(whole, *parts, strict=True):
        slices = [part for part in slices if part is not None]
        for number, column in enumerate(batch):
            if isinstance(column, torch.Tensor):
                pieces = [part[number] for part in slices]
                if column.ndim == 2:  # each part is padded to its own longest row
                    width = column.shape[1]
                    pieces = [F.pad(piece, (0, width - piece.shape[1])) for piece in pieces]
                assert torch.equal(torch.cat(pieces), column)


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (lambda folder, **o: Small(batch_size=5, sequence_length=9, order="windows", **o), {5}),
        (lambda folder, **o: labelled(folder, **o), {8}),
        (lambda folder, **o: parallel(folder, batch_size=7, **o), {7}),
    ],
)
def test_drop_last_omits_the_smaller_batch_of_training_alone(make, sizes, tmp_path):
    modules = make(tmp_path), make(tmp_path, drop_last=True)
    for module in modules:
        module.setup()
    kept, dropped = ([len(b[0]) for b in m.batches("train", 0)] for m in modules)
    assert set(dropped) == sizes and len(kept) == len(dropped) + 1
    kept, dropped = (sum(len(b[0]) for b in m.batches("val", 0)) for m in modules)
    assert kept == dropped
