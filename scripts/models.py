"""Writes docs/models.md: every model that a configuration names, its paper and its size.

    python scripts/models.py

Sources are the first lines of the models' files, sizes are counted on networks without memory.
Sizes that only the data know are the builders' defaults; a model without defaults has none here.
"""

import clone  # noqa: F401

# isort: split
import argparse
import importlib
import inspect
from pathlib import Path
from typing import Any

import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]

PAGE = ROOT / "docs" / "models.md"
HEAD = """# Models

Written by `python scripts/models.py`. Each file says how its network differs from the paper. Sizes
are those of the builder's defaults (a thousand classes for the networks of ImageNet, ten for those
of CIFAR); where only the data know a size there is none.
`python scripts/summary.py model=resnet50` shows a network layer by layer.
"""


def parameters(target: Any, arguments: dict[str, Any]) -> int | None:
    """Parameters of a network built with the arguments, or None if some are only in the data."""
    known = {name: value for name, value in arguments.items() if value != "auto"}
    open_ones = [
        p.name
        for p in inspect.signature(target).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and (p.default is p.empty or (p.default is None and arguments.get(p.name) == "auto"))
    ]
    if any(name not in known for name in open_ones):
        return None
    known = {name: tuple(v) if isinstance(v, list) else v for name, v in known.items()}
    with torch.device("meta"):
        network = target(**known)
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def page() -> str:
    """The whole page."""
    families: dict[str, list[str]] = {}
    for path in sorted((ROOT / "configs" / "model").glob("*.yaml")):
        arguments = yaml.safe_load(path.read_text(encoding="utf-8"))
        module_name, _, name = arguments.pop("_target_").rpartition(".")
        module = importlib.import_module(module_name)
        source = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ").rstrip(".")
        count = parameters(getattr(module, name), arguments)
        file = module_name.replace(".", "/") + ".py"
        family = module_name.split(".")[2] if module_name.count(".") > 2 else "basic"
        families.setdefault(family, []).append(
            f"| `{path.stem}` | {f'{count:,}' if count else ''} | {source} | "
            f"[{Path(file).name}](../{file}) |"
        )
    text = HEAD
    for family in sorted(families):
        text += f"\n## {family.capitalize()}\n\n| `model=` | parameters | source | file |\n"
        text += "|---|---|---|---|\n" + "\n".join(families[family]) + "\n"
    return text


def main() -> None:
    """Runs the program."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
