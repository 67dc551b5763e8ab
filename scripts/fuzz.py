"""Mutates valid command lines of train.py, and says which of them are answered badly.

    python scripts/fuzz.py
    python scripts/fuzz.py mutants=5000 seed=7

A mutant has one word that was misspelt, doubled, emptied, given another type, and so on. The
program composes and checks it, and builds its parts without reading data or training. It must end
in one of two ways: refused with exit code 2 and one line, or accepted, and then its word has
changed the configuration, or says what would be there without it. Whatever else happens is printed
with its command line, and the exit code is 1. The same seed gives the same mutants.
"""

import clone  # noqa: F401

# isort: split
import contextlib
import io
import os
import random
import shlex
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.app import main as entry
from zoo.app.place import RunLocation
from zoo.app.program import program
from zoo.config.command_line import CommandLine
from zoo.config.compose import compose, compose_plain
from zoo.config.errors import ConfigError, as_cli_text
from zoo.config.overrides import GROUPS, parse, prepare
from zoo.config.paths import CONFIGS
from zoo.config.recipe import Recipe
from zoo.config.resuming import flat

Line = list[str]

LARGEST = 1000  # of the numbers of a model that is built
STRANGE = (
    *("abc", "true", "null", "[1,2]", "{a: 1}", "1.5", "-1", "0", "nan", "inf", "-inf", "''"),
    *("0x10", "1_000", "1e400", "???", "${seed}", "${nothing}", "${oc.env:HOME}", "$(ls)", "auto"),
    *('"1"', "'1'", "1 2", "[", "}", "(1", "'", '"', "\\", "a=b", "a:b", "~", "~/x", "/", "*", "@"),
    *("!!python/name:os.system", "&a", "*a", "[[[[1]]]]", "{}", "[]", "None", "yes", "01", "+1"),
)
HUGE = (
    *("1" + "0" * 30, "-1" + "0" * 30, "9223372036854775808", "1e308", "-1e308", "1e-400"),
    *("x" * 5000, "1" * 5000, "[" * 300 + "]" * 300),
)
SEVERAL = ("1,2", "range(3)", "choice(a,b)", "glob(*)", "interval(0,1)", "sort(3,1)", "shuffle(a)")
FOREIGN = (
    *("ü", "值", "１", "٣", "½", "\u200b1", "1\u00a0", "🙂", "\u202e1", "e\u0301", "\udcff"),
    *("\t1", "1\n2", "\x1b[31m1", "\r1", "\x7f"),
)


class Accepted(BaseException):
    """A run would begin now; its configuration is the argument."""


@dataclass(frozen=True)
class Mutant:
    """A command line of which one word is strange.

    Attributes:
        kind: how it was made so.
        words: all of them.
        place: the number of the strange word.
    """

    kind: str
    words: Line
    place: int

    @property
    def rest(self) -> Line:
        """The words without the strange one."""
        return [*self.words[: self.place], *self.words[self.place + 1 :]]


def build_parts(recipe: Recipe, place: RunLocation) -> dict[str, Any]:
    """Builds what can be built without data; in place of training.

    Raises:
        Accepted: nothing is wrong.
        ConfigError: a part refuses a value.
    """
    import torch

    from zoo.training.optimizers import make_optimizer

    data = recipe.data.build()
    recipe.schedule.build()
    for callback in recipe.callbacks:
        callback.build()
    for optimizer in recipe.optimizers.values():
        optimizer.build_with(make_optimizer, torch.nn.Linear(2, 2))
    try:
        facts = data.facts()
    except RuntimeError:  # Not known before the data are read.
        facts = {}
    model = recipe.model.replaced({n: facts[n] for n in recipe.model.auto if facts.get(n)})
    sizes = [v for _, v in flat(model.node) if isinstance(v, int | float)]
    if not model.auto and all(abs(size) <= LARGEST for size in sizes):
        with torch.device("meta"):
            model.build()
    raise Accepted(recipe.config)


# -------------------------------------------------------------------------------------- mutations


def misspelt(text: str, choice: random.Random) -> str:
    """The text with one character dropped, doubled, swapped with the next, or replaced."""
    if not text:
        return choice.choice("aZ0_.")
    at = choice.randrange(len(text))
    return choice.choice(
        [
            text[:at] + text[at + 1 :],
            text[:at] + text[at] + text[at:],
            text[:at] + text[at + 1 : at + 2] + text[at] + text[at + 2 :],
            text[:at] + choice.choice("abcxyzABC019_.-/") + text[at + 1 :],
            text.swapcase(),
        ]
    )


def _word(change: Callable[[str, str, random.Random], str]) -> Callable[..., tuple[Line, int]]:
    """A mutation of one word, from what it does to a key and its value."""

    def mutate(line: Line, at: int, choice: random.Random) -> tuple[Line, int]:
        key, _, value = line[at].partition("=")
        return [*line[:at], change(key, value, choice), *line[at + 1 :]], at

    return mutate


def _again(line: Line, at: int, choice: random.Random) -> tuple[Line, int]:
    key, _, value = line[at].partition("=")
    word = choice.choice([line[at], f"{key}={choice.choice(STRANGE)}", f"+{key}={value}"])
    return [*line, word], len(line)


def _exchanged(line: Line, at: int, choice: random.Random) -> tuple[Line, int]:
    """The value of another word of the line."""
    key, value = line[at].partition("=")[0], choice.choice(line).partition("=")[2]
    return [*line[:at], f"{key}={value}", *line[at + 1 :]], at


MUTATIONS: dict[str, Callable[[Line, int, random.Random], tuple[Line, int]]] = {
    "key misspelt": _word(lambda k, v, c: f"{misspelt(k, c)}={v}"),
    "value misspelt": _word(lambda k, v, c: f"{k}={misspelt(v, c)}"),
    "strange value": _word(lambda k, v, c: f"{k}={c.choice(STRANGE)}"),
    "huge value": _word(lambda k, v, c: f"{k}={c.choice(HUGE)}"),
    "foreign characters": _word(
        lambda k, v, c: c.choice([f"{k}={c.choice(FOREIGN)}", f"{k}{c.choice(FOREIGN)}={v}"])
    ),
    "empty": _word(lambda k, v, c: c.choice(["", " ", "=", f"{k}=", f"={v}", f"{k}= ", k])),
    "given twice": _again,
    "another's value": _exchanged,
    "turned round": _word(lambda k, v, c: f"{v}={k}"),
    "removed": _word(lambda k, v, c: c.choice([f"~{k}", f"~{k}={v}", f"~{k.partition('.')[0]}"])),
    "a flag": _word(
        lambda k, v, c: c.choice(
            [f"--{k}={v}", f"-{k}", f"--{k}", f"-{k[0]}={v}", "--cfg=all", "--config-dir", "-x"]
        )
    ),
    "prefixed": _word(lambda k, v, c: f"{c.choice(['+', '++', '+++', '!', '.', '/', '-'])}{k}={v}"),
    "too deep": _word(
        lambda k, v, c: c.choice([f"{k}.x={v}", f"{k}[0]={v}", f"{k}/{k}={v}", f"{k}@x={v}"])
    ),
    "too high": _word(
        lambda k, v, c: f"{k.rpartition('.')[0] or k}={c.choice([v, '{}', 'null', f'{{x: {v}}}'])}"
    ),
    "several values": _word(lambda k, v, c: f"{k}={c.choice([f'{v},{v}', *SEVERAL])}"),
    "another group": _word(
        lambda k, v, c: f"{c.choice([*GROUPS, 'hydra', 'seed', 'name', 'freeze'])}={v or k}"
    ),
    "an option": _word(
        lambda k, v, c: (
            c.choice(["trusted=", "checkpoint=", "resume=", "failed="])
            + c.choice([v, "[x]", *STRANGE])
        )
    ),
}


def valid_line(choice: random.Random, experiments: Sequence[str]) -> Line:
    """A command line that runs: an experiment and, as they are there, some of its values."""
    name = choice.choice(experiments)
    line = [f"experiment={name}"]
    config = base_config(line)
    values = [
        f"{key}={as_cli_text(value)}"
        for key, value in flat(config)
        if not key.endswith("_target_") and not isinstance(value, dict)
    ]
    return [*line, *choice.sample(values, choice.randrange(1, 4))]


def mutants(count: int, seed: int) -> Iterator[Mutant]:
    """Mutants of valid command lines, of every kind in turn."""
    choice = random.Random(seed)
    experiments = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
    kinds = list(MUTATIONS)
    for number in range(count):
        line = valid_line(choice, experiments)
        kind = kinds[number % len(kinds)]
        # The experiment is but one of the words, and the others are more telling.
        at = choice.randrange(len(line)) if choice.random() < 0.3 else len(line) - 1
        yield Mutant(kind, *MUTATIONS[kind](line, at, choice))


# ---------------------------------------------------------------------------------------- answers

_configs: dict[tuple[str, ...], dict[str, Any] | None] = {}


def base_config(words: Line) -> dict[str, Any]:
    """The configuration of a line that is valid."""
    found = configured(words)
    assert found is not None, words
    return found


def configured(words: Line) -> dict[str, Any] | None:
    """The configuration of a line; None if it is refused."""
    key = tuple(words)
    if key not in _configs:
        try:
            with warnings.catch_warnings(action="ignore"):
                _configs[key] = compose(words).config
        except ConfigError:
            _configs[key] = None
    return _configs[key]


def fault_of(mutant: Mutant) -> tuple[str, str]:
    """Runs the program on a mutant.

    Returns:
        How it answered, and what is wrong with that; "" if nothing is.
    """
    out, err = io.StringIO(), io.StringIO()
    config: dict[str, Any] | None = None
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = entry.main(build_parts, mutant.words)
        except Accepted as accepted:
            config = accepted.args[0]
        except BaseException as error:
            return "crashed", f"{type(error).__name__}: {error}"
    said = [line for line in err.getvalue().splitlines() if not line.startswith("warning: ")]
    if left := os.listdir():
        return "crashed", f"left {', '.join(left)} behind"
    if config is not None:
        wrong = f"accepted, and said {said}" if said else without_effect(mutant, config)
        return "accepted", wrong
    if code != 2 or out.getvalue():
        return "crashed", f"exit code {code}: {' '.join(said)[-300:]} {out.getvalue()[-300:]}"
    is_one_line = len(said) == 1 and said[0].startswith("error: ") and said[0].isprintable()
    return "refused", "" if is_one_line else f"refused in {len(said)} lines: {said}"


def without_effect(mutant: Mutant, config: dict[str, Any]) -> str:
    """What is wrong with a mutant that was accepted: its word changes nothing and is not true."""
    if config != configured(mutant.rest):
        return ""
    word = mutant.words[mutant.place]
    try:
        (override,) = parse([word])
    except (ConfigError, ValueError):
        return f"accepted {word!r}, which changes nothing"
    key, value = override.key_or_group, override.value()
    if key in GROUPS and isinstance(value, str | None):
        choices = compose_plain(prepare(mutant.words))[1]
        return "" if choices.get(key) == value else f"accepted {word!r}: {choices.get(key)!r} stays"
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return "" if node == value else f"accepted {word!r}, which changes nothing: it stays {node!r}"


def fuzz(count: int, seed: int) -> tuple[Counter[tuple[str, str]], list[tuple[Mutant, str]]]:
    """Runs mutants in an empty folder.

    Returns:
        How many of each kind were answered in which way, and those that were answered badly.
    """
    answers: Counter[tuple[str, str]] = Counter()
    faults = []
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for mutant in mutants(count, seed):
                answer, fault = fault_of(mutant)
                answers[mutant.kind, answer] += 1
                if fault:
                    faults.append((mutant, fault))
        finally:
            os.chdir(before)
    return answers, faults


def report(line: CommandLine) -> None:
    """Fuzzes, and prints what was found."""
    if line.overrides:
        raise ConfigError(f"{line.overrides[0]}: fuzz.py takes mutants=<count> and seed=<number>")
    count, seed = line.integer("mutants", 1000, least=1), line.integer("seed", 0, least=0)
    answers, faults = fuzz(count, seed)
    print(f"{'':<20}{'refused':>10}{'accepted':>10}{'crashed':>10}")
    for kind in MUTATIONS:
        counts = (answers[kind, answer] for answer in ("refused", "accepted", "crashed"))
        print(f"{kind:<20}" + "".join(f"{count:>10}" for count in counts))
    for mutant, fault in faults:
        print(f"\n{mutant.kind}: {fault}\n  {shlex.join(mutant.words)[:500]!a}")
    print(f"\n{count:,} mutants of seed {seed}: {len(faults)} were answered badly")
    if faults:
        sys.exit(1)


main = program(report, __doc__, options=("mutants", "seed"))

if __name__ == "__main__":
    sys.exit(main())
