"""Searches for good values of hyperparameters, with Optuna (pip install 'optuna>=5').

    python scripts/search.py space=docs/spaces/mlp_digits.yaml model=mlp data=digits trials=30
    python scripts/search.py space=space.yaml experiment=lenet_digits seed=1,2,3 workers=2
    python scripts/search.py resume=runs/lenet_digits/<search>

A trial trains one combination of values of the space; its value is the monitored validation metric
of the selected weights, and of several seeds the mean. Other words are those of train.py. Before
the first trial, every choice and both ends of every range are composed, checked and built.

space=<file>   YAML: a key and its choices, `optimizer: [adamw, sgd]`, or its range,
               `optimizer.lr: {low: 1e-4, high: 0.1, log: true}`, with `int: true` for whole
               numbers and `step:` for a grid. With `when: {optimizer: sgd}` a key is there only
               where another one, above it, has that value
trials=20      how many there are in the end, failed and pruned ones included
seed=1,2,3     each trial trains once with each; pruning looks at the first alone
sampler=tpe    what chooses the values: tpe or random
pruner=median  what ends a trial early: median (worse than the median of the others after
               as many validations), hyperband, or none
workers=1      processes that work at the same time; each takes a GPU of its own where there are
               several
resume=<folder>  goes on with a search that was stopped, from the checkpoints of its runs; trials=
               and workers= may change
"""

import sys

import clone  # noqa: F401
from zoo.app.program import program
from zoo.config.command_line import CommandLine

OPTIONS = ("space", "resume", "trials", "workers", "sampler", "pruner")


def _search(line: CommandLine) -> None:
    from zoo.app.searching.run import search

    search(line)


main = program(_search, __doc__, options=OPTIONS, flags=("--config-dir",))

if __name__ == "__main__":
    sys.exit(main())
