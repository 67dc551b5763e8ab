"""Counts n-grams of a text and prints how well they predict the rest of it: the score to beat.

    python scripts/ngram_baseline.py data=tiny_shakespeare order=8
    python scripts/ngram_baseline.py experiment=lstm_stdlib

Interpolated modified Kneser-Ney smoothing, see zoo/models/ngram.py. Every order from 1 to the
highest is fitted to the training text and judged on the other, as one text from its beginning to
its end: nats a token, perplexity and, where the tokens spell the text, bits a character.
Configuration words are those of train.py, of which only the data matter; besides them:

order=6        the longest n
split=val      which split to predict
"""

import math
import sys
from typing import TYPE_CHECKING

import clone  # noqa: F401
from zoo.app.program import program
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, as_config_error

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.models.ngram import NGram

PATHS = ("order", "split")
ENTRIES = 1 << 22  # probabilities that are in memory at a time


def baseline(line: CommandLine) -> None:
    """Prints a line for each order."""
    order, split = line.integer("order", 6, least=1), line.options.get("split", "val")

    from zoo.config.compose import compose
    from zoo.data.text.text import Text
    from zoo.models.ngram import NGram

    recipe = compose(
        line.overrides, config_dir=line.flags.get("--config-dir"), trusted=line.trusted
    )
    data = recipe.data.build()
    if not isinstance(data, Text):
        raise ConfigError(f"data: {type(data).__name__} is not text")
    if split not in data.splits or split == "train":
        others = ", ".join(name for name in data.splits if name != "train")
        raise ConfigError(f"split={split}: must be one of {others}")
    with as_config_error("data"):
        parts = data.parts()
        vocabulary = data.learn(parts)
        train, held_out = (
            data.tokens(name, parts[name], vocabulary).long() for name in ("train", split)
        )
    characters = vocabulary.characters()
    print(f"{len(vocabulary):,} tokens; {len(train):,} to count, {len(held_out):,} to predict")
    print("order    loss  perplexity" + ("  bits_per_character" if characters else ""))
    for n in range(1, order + 1):
        model = NGram(len(vocabulary), order=n)
        with as_config_error("order"):
            model.fit(train)
        nats = loss(model, held_out)
        text = f"{n:>5}  {nats:.4f}  {math.exp(nats):>10.3f}"
        if characters:
            spelt = sum(characters[token] for token in held_out[1:].tolist())
            text += f"  {nats * (len(held_out) - 1) / spelt / math.log(2):>18.4f}"
        print(text, flush=True)


def loss(model: "NGram", tokens: "Tensor") -> float:
    """Nats a token of a text: of every token but the first, given all before it."""
    inputs, targets = tokens[:-1], tokens[1:]
    size = max(1, ENTRIES // model.vocab_size)
    total, state = 0.0, None
    for some, next_ones in zip(inputs.split(size), targets.split(size), strict=True):
        log_p, state = model(some.unsqueeze(0), state)
        total -= log_p[0].gather(1, next_ones.unsqueeze(1)).sum().item()
    return total / len(targets)


main = program(baseline, __doc__, options=PATHS, flags=("--config-dir",))

if __name__ == "__main__":
    sys.exit(main())
