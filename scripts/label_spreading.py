"""Spreads a few labels of digits over a graph of nearest neighbours: what learning has to beat.

    python scripts/label_spreading.py [labels_per_class=1] [draws=20]

scikit-learn's LabelSpreading (Zhou et al., 2003) with its nearest-neighbour kernel, seven
neighbours and its own defaults otherwise, on the labels that experiment=knn_digits draws, and
judged on the same test digits. It has no weights and its own graph of the same pixels.

labels_per_class=1   default: 1, 2 and 5, a line each
draws=20             data.data_seed from 0 on
"""

import statistics
import sys

import clone  # noqa: F401
from zoo.app.program import program
from zoo.config.command_line import CommandLine

PATHS = ("labels_per_class", "draws")
LABELS = (1, 2, 5)


def spread(line: CommandLine) -> None:
    """Prints mean and deviation of the accuracy over draws of labels."""
    draws = line.integer("draws", 20, least=2)
    given = (
        line.integer("labels_per_class", 0, least=1) if "labels_per_class" in line.options else 0
    )
    print("labels  accuracy  deviation  draws")
    for labels in (given,) if given else LABELS:
        found = [accuracy(labels, seed) for seed in range(draws)]
        mean, deviation = statistics.mean(found), statistics.stdev(found)
        print(f"{labels:>6}  {mean:>8.4f}  {deviation:>9.4f}  {draws:>5}", flush=True)


def accuracy(labels_per_class: int, data_seed: int) -> float:
    """The share of test digits that are right after the labels of one draw have spread."""
    from sklearn.semi_supervised import LabelSpreading

    from zoo.data.graphs.knn_digits import KNNDigits

    data = KNNDigits(labels_per_class=labels_per_class, data_seed=data_seed)
    data.setup()
    train, test = (next(data.batches(split, 0)) for split in ("train", "test"))
    known = train.labels.where(train.mask, -1).numpy()  # -1: to be found
    model = LabelSpreading(kernel="knn", n_neighbors=7).fit(train.features.numpy(), known)
    right = model.transduction_ == train.labels.numpy()
    return float(right[test.mask.numpy()].mean())


main = program(spread, __doc__, options=PATHS)

if __name__ == "__main__":
    sys.exit(main())
