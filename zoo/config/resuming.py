"""What may change when a run goes on: every setting has one of three answers.

- `FREE`: leaves the run what it is, up to rounding: where it runs, how fast, what it shows.
- `FROM_HERE`: applies from the step on at which the run is resumed.
- `REFUSED`: would mix what cannot be mixed; the reason is what the user is told.

A key that is not named itself has the answer of the nearest one above it. Docs have the same table
(`docs/runs.md`), and a test walks through all settings.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo.config.errors import ConfigError, as_cli_text

FREE = (
    "trainer.device",
    "trainer.strategy",
    "trainer.channels_last",
    "trainer.compile",
    "trainer.cuda_graphs",
    "trainer.activation_checkpointing",
    "trainer.memory_limit",
    "trainer.deterministic",
    "trainer.threads",
    "trainer.train_metrics",
    "trainer.log_every",
    "trainer.time_limit",
    "callbacks.checkpoint.every_steps",
    "callbacks.checkpoint.every_minutes",
    "callbacks.checkpoint.background",
    "callbacks.checkpoint.keep_every",
    "callbacks.profile",
    "logger",
    "paths.data_dir",
)
FROM_HERE = (
    "trainer.epochs",
    "trainer.steps",
    "trainer.precision",
    "trainer.clip_norm",
    "trainer.clip_value",
    "trainer.ema_decay",
    "trainer.sync_batchnorm",
    "trainer.evaluate_every",
    "optimizer",
    "schedule",
    "callbacks.checkpoint.top_k",
    "callbacks.early_stopping",
    "callbacks.extra",
)
_ANOTHER = "would make another run; start a new one instead"
_COUNTED = (
    "would change how many steps an epoch has, by which this run counts; start a new run instead"
)
COMPARED = (
    "would compare values that are not comparable: the best checkpoint so far was selected "
    "without it; start a new run instead"
)
REFUSED = {
    "name": _ANOTHER,
    "seed": _ANOTHER,
    "freeze": _ANOTHER,
    "data": _ANOTHER,
    "model": _ANOTHER,
    "task": _ANOTHER,
    "trainer.accumulate": _COUNTED,
    "trainer.limit_train_batches": _COUNTED,
    "trainer.overfit": _COUNTED,
    "trainer.find_batch_size": "is looked for before a run begins, and this one has its size",
    "trainer.limit_eval_batches": COMPARED,
    "callbacks.checkpoint.monitor": COMPARED,
    "callbacks.checkpoint.mode": COMPARED,
    "paths.runs_dir": "a run stays where it is; omit it",
}
MEANT_BY_TASK = ("callbacks.checkpoint.monitor", "callbacks.checkpoint.mode")
"""Settings whose `auto` only the task can tell from another value: whoever builds it refuses."""


def answer(key: str) -> str:
    """`free`, `from here on`, or why a setting must not change.

    Args:
        key: full key of the setting.

    Raises:
        KeyError: neither it nor a key above it has an answer.
    """
    answers = {**dict.fromkeys(FREE, "free"), **dict.fromkeys(FROM_HERE, "from here on"), **REFUSED}
    name = key
    while name not in answers:
        if "." not in name:
            raise KeyError(key)
        name = name.rpartition(".")[0]
    return answers[name]


def check_changes(
    stored: Mapping[str, Any], now: Mapping[str, Any], words: Sequence[str]
) -> dict[str, str]:
    """Refuses what must not change when a run goes on.

    Args:
        stored: the configuration of the run, complete.
        now: the one that it is to go on with.
        words: the values of the command line that were laid over it.

    Returns:
        The words that change something, with the answer to each (`from here on`, if any part of it
        is).

    Raises:
        ConfigError: a word changes a setting that a run keeps.
    """
    was, changed = dict(flat(stored)), _differences(stored, now)
    found: dict[str, str] = {}
    for word in words:
        key = word.lstrip("+").partition("=")[0]
        for name in (n for n in changed if n == key or n.startswith(f"{key}.")):
            # Of data and task whatever reaches this point is what they call changeable.
            group = name.partition(".")[0]
            said = "free" if group in ("data", "task") else answer(name)
            if name in MEANT_BY_TASK and "auto" in (was[name], changed[name]):
                said = "from here on"
            if said not in ("free", "from here on"):
                value = "" if name == key else f" ({name}={as_cli_text(changed[name])})"
                raise ConfigError(f"{word}{value}: {said}")
            found[word] = said if found.get(word) != "from here on" else found[word]
    return found


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `b`, by full key, that are not those of `a`."""
    was = dict(flat(a))
    missing = object()
    return {key: value for key, value in flat(b) if was.get(key, missing) != value}


def flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a configuration with its full key."""
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
