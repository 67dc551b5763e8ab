"""Which options of `evaluate.py` go together."""

from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError

ACTIONS = {
    "predict": "predict=<file or folder>",
    "calibrate": "calibrate=true",
    "threshold": "threshold=best",
    "costs": "costs=[[0,1],[1000,0]]",
    "prior": "prior=<share>",
    "attack": "attack=pgd",
    "corrupt": "corrupt=all",
    "sample": "sample=<count>",
    "neighbours": "neighbours=<count>",
    "over_training": "over_training=<count>",
    "reconstruct": "reconstruct=<image or folder>",
    "interpolate": "interpolate=<image>,<image>",
    "traverse": "traverse=<image>",
}
"""What there is to do besides an evaluation, and how it is written."""

JUDGED = ("threshold", "costs", "prior", "attack", "corrupt")
DRAWN = ("sample", "neighbours", "over_training", "reconstruct", "interpolate", "traverse")

WITH_EVALUATION: dict[str, tuple[str, ...]] = {
    "split": JUDGED,
    "bootstrap": (),
    "ensemble": ("predict",),
    "temperature": ("predict",),
    "mc_dropout": ("predict",),
    "tta": ("predict",),
    "crop": ("predict",),
}
"""Options of an evaluation, and the actions that they go with too."""

OTHERS = {
    "bootstrap": "bootstrap=<resamples>",
    "mc_dropout": "mc_dropout=<count>",
    "ensemble": "ensemble=mean",
}
NEEDS: dict[str, tuple[str, ...]] = {
    "seed": ("sample", "neighbours", "attack", "corrupt", "bootstrap", "mc_dropout"),
    "steps": ("interpolate", "traverse", "attack"),
    "out": ("predict", *DRAWN, "ensemble"),
    "metric": ("threshold",),
    "severity": ("corrupt",),
    "eps": ("attack",),
    "step_size": ("attack",),
    "target": ("attack",),
}
"""Options that go with one of these alone."""

ALONE = (
    {"tta", "mc_dropout"},
    {"threshold", "costs"},
    {"threshold", "prior"},
    *({"ensemble", name} for name in ("bootstrap", "temperature", "mc_dropout", "tta", "crop")),
)
"""Pairs that exclude each other."""

NAMES = ("run", "checkpoint", *ACTIONS, *WITH_EVALUATION, *NEEDS)


def action_of(line: CommandLine) -> str | None:
    """What a command line asks for; None: an evaluation.

    Raises:
        ConfigError: options do not go together.
    """
    given = [name for name in NAMES if name in line.options]
    actions = [name for name in given if name in ACTIONS]
    if set(actions) == {"costs", "prior"}:
        actions = ["costs"]
    pairs = [*(set(pair) for pair in ALONE if pair <= set(given)), *([set(actions[:2])])]
    for pair in pairs:
        if len(pair) == 2:
            raise ConfigError(f"{' and '.join(sorted(pair))} exclude each other")
    action = actions[0] if actions else None
    for name in given:
        allowed = WITH_EVALUATION.get(name)
        if action is not None and allowed is not None and action not in allowed:
            raise ConfigError(f"{name} and {action} exclude each other")
        if name in NEEDS and not set(NEEDS[name]) & set(given):
            words = ", ".join((ACTIONS | OTHERS)[needed] for needed in NEEDS[name])
            raise ConfigError(f"{name} goes with {words}")
    return action
