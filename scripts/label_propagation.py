"""Spreads the training labels of a graph along its edges: the score that a network has to beat.

    python scripts/label_propagation.py data=planetoid
    python scripts/label_propagation.py experiment=gcn_cora steps=100

Label propagation (Zhou et al. 2003), see zoo/models/graph/label_propagation.py. Nothing is learned,
so that there is no run: a line for each alpha, the share of the neighbours, and which of them is
the best on val. Configuration words are those of train.py, of which only the data matter; besides
them:

steps=50       how many steps labels are passed on
"""

import sys

import clone  # noqa: F401
from zoo.app.program import program
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, as_config_error

ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


def spread(line: CommandLine) -> None:
    """Prints a line for each alpha and the one that val selects."""
    steps = line.integer("steps", 50, least=1)

    from zoo.config.compose import compose
    from zoo.data.graphs.batches import GraphBatch
    from zoo.models.graph.label_propagation import LabelPropagation

    recipe = compose(
        line.overrides, config_dir=line.flags.get("--config-dir"), trusted=line.trusted
    )
    data = recipe.data.build()
    with as_config_error("data"):
        data.setup(seed=recipe.settings.seed)
    graphs = {split: next(iter(data.batches(split, 0))) for split in data.splits}
    train = graphs["train"]
    if not isinstance(train, GraphBatch) or set(graphs) != {"train", "val", "test"}:
        raise ConfigError(
            f"data: {type(data).__name__} has no graph with nodes for train, val and test"
        )
    print("alpha     val    test")
    found: dict[float, dict[str, float]] = {}
    for alpha in ALPHAS:
        model = LabelPropagation(steps, alpha)
        weight = train.edge_weight
        guess = model(train.labels, train.edge_index, train.mask, weight).argmax(1)
        found[alpha] = {
            split: (guess == graph.labels)[graph.mask].float().mean().item()
            for split, graph in graphs.items()
        }
        print(f"{alpha:>5}  {found[alpha]['val']:.4f}  {found[alpha]['test']:.4f}", flush=True)
    best = max(found, key=lambda alpha: found[alpha]["val"])
    print(f"best on val: alpha {best}, test accuracy {found[best]['test']:.4f}")


main = program(spread, __doc__, options=("steps",), flags=("--config-dir",))

if __name__ == "__main__":
    sys.exit(main())
