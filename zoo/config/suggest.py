"""What the user may have meant by a word that is no setting: full keys, options, experiments."""

from dataclasses import fields, is_dataclass
from functools import cache
from typing import get_type_hints

from zoo.config.paths import CONFIGS
from zoo.training.settings import RunSettings

SHOWN = 3

ELSEWHERE = {
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "max_steps": "steps",
    "workers": "num_workers",
    "accelerator": "device",
    "grad_clip": "clip_norm",
    "gradient_accumulation_steps": "accumulate",
}
"""What other trainers call a setting, to its name here."""


@cache
def _full_keys() -> dict[str, list[str]]:
    """The last part of every key that the settings or a group's files have, to the whole keys."""
    import yaml

    found: dict[str, list[str]] = {}

    def note(full: str) -> None:
        found.setdefault(full.rpartition(".")[2], []).append(full)

    def walk(kind: type, prefix: str) -> None:
        hints = get_type_hints(kind)
        for field in fields(kind):
            if is_dataclass(hints[field.name]):
                walk(hints[field.name], f"{prefix}{field.name}.")
            else:
                note(prefix + field.name)

    walk(RunSettings, "")
    for group in ("data", "model", "task", "optimizer", "schedule"):
        keys: dict[str, None] = {}
        for file in sorted((CONFIGS / group).glob("*.yaml")):
            content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            keys |= dict.fromkeys(key for key in content if key not in ("_target_", "defaults"))
        for key in keys:
            note(f"{group}.{key}")
    return found


def full_keys(name: str) -> list[str]:
    """The full keys whose last part is a word, however its parts are joined (`batch-size`)."""
    name = name.lstrip("-").replace("-", "_")
    return _full_keys().get(ELSEWHERE.get(name, name), [])[:SHOWN]


def meant_by(word: str) -> str:
    """A clause for a word without `=` that is the name of an option; "" where it is none."""
    for group in ("experiment", "model", "data", "task", "optimizer", "schedule", "debug"):
        if (CONFIGS / group / f"{word}.yaml").is_file():
            return f"did you mean {group}={word}?"
    return ""
