"""`--help`, from the configuration files themselves; imports nothing slow."""

import re
from pathlib import Path

from zoo.config.paths import CONFIGS

USAGE = """\
Trains and evaluates the models of the zoo.

  python train.py experiment=<name> [group=option] [key=value] ...
  python train.py resume=<run folder> [checkpoint=best|previous|<file>] [trainer.epochs=20]
  python train.py -m optimizer.lr=0.01,0.1 seed=1,2,3      every combination, with a closing table
  python train.py resume=<sweep folder> [failed=retry]     what is left of a sweep
  python evaluate.py run=<run folder> [split=test] [checkpoint=best|last|<file>]
  python evaluate.py run=<run folder> predict=<image or folder> [out=<file.csv or folder>]
"""

EXAMPLES = """\
Examples:
  python train.py                                          LeNet-5 on digits, under a minute
  python train.py experiment=mlp_mnist optimizer.lr=0.01 seed=3
  python train.py model=mlp data=digits trainer.epochs=20  a model and data of your choice

Flags: --help, --version, --cfg job (print the composed configuration), -m (sweep),
--config-dir DIR (groups of your own). trusted=[my_package] allows components of your own.
Every setting: `python train.py --cfg job`; what it means: zoo/training/settings.py and docs/.
TensorBoard: tensorboard --logdir runs/<experiment>
"""


def header(path: Path) -> tuple[str, str]:
    """The purpose and the result in a configuration file's header comment."""
    purpose = result = ""
    whole = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = re.sub(r"^#\s*", "", line)
        if text.startswith("@package"):
            continue
        if text.startswith("Result:"):
            result = text.removeprefix("Result:").strip()
        elif not whole and not re.match(r"[A-Z]\w+: ", text):
            purpose = f"{purpose} {text}".strip()  # A sentence may go on in the next line.
            whole = text.endswith(".")
        else:
            whole = True
    return purpose, result


def groups() -> dict[str, list[str]]:
    """Every group with its options."""
    return {
        folder.name: sorted(
            str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.yaml")
        )
        for folder in sorted(CONFIGS.iterdir())
        if folder.is_dir()
    }


def text() -> str:
    """The whole of `--help`."""
    found = groups()
    lines = [USAGE, "Experiments (experiment=...):"]
    width = max((len(name) for name in found["experiment"]), default=0)
    for name in found["experiment"]:
        purpose, result = header(CONFIGS / "experiment" / f"{name}.yaml")
        lines.append(f"  {name:<{width}}  {purpose}")
        if result:
            lines.append(f"  {'':<{width}}  {result}")
    lines.append("\nGroups (group=option; null for none of experiment and debug):")
    for name, options in found.items():
        if name != "experiment":
            lines.append(f"  {name:<10} {', '.join(options)}")
    return "\n".join([*lines, "", EXAMPLES])
