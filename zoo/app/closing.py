"""What train.py prints at the end of a run: the results, and which commands make sense next."""

import shlex
from pathlib import Path
from typing import Any

from zoo.app.place import RunLocation


def _use(config: dict[str, Any], path: str) -> str:
    """The program that uses what a run has learned, if it is one for texts."""
    task, data = (config[group]["_target_"].rpartition(".")[2] for group in ("task", "data"))
    if task == "LanguageModeling":
        return f"scripts/generate.py run={path} length=500"
    if task == "Translation" and data in ("Multi30k", "ParallelText"):
        return f"scripts/translate.py run={path} < sentences.txt"
    return ""


def _sweep(run: Path, config: dict[str, Any]) -> str:
    """The words of a sweep around a run: other seeds and, where there is one, learning rates."""
    import yaml

    words = yaml.safe_load((run / "overrides.yaml").read_text(encoding="utf-8")) or []
    words = [word for word in words if not word.startswith(("seed=", "optimizer.lr="))]
    rate = config["optimizer"].get("lr")
    if isinstance(rate, int | float):
        words.append(f"optimizer.lr={rate / 2:g},{rate:g}")
    return shlex.join([*words, "seed=1,2"])


def conclude(place: RunLocation) -> None:
    """Prints the results table, what to do next and, last, the run folder."""
    from zoo.app.words import python_command, shown
    from zoo.config.run_config import load

    results, folder = place.results, place.folder
    splits = [split for split in ("val", "test") if results.get(split)]
    names = list(dict.fromkeys(name for split in splits for name in results[split]))
    print()
    print(f"{'':<24}" + "".join(f"{split:>12}" for split in splits))
    for name in names:
        row = "".join(f"{results[split].get(name, float('nan')):>12.4f}" for split in splits)
        print(f"{name:<24}{row}")
    print(
        f"{results['parameters']:,} parameters, {results['steps']:,} steps in "
        f"{results['seconds']:.1f} s, weights of step {results['selected_step']:,}\n"
    )
    if (folder.path / "operators.txt").exists():
        print((folder.path / "operators.txt").read_text(encoding="utf-8"))
        print(f"trace for https://ui.perfetto.dev: {shown(folder.path / 'trace.json')}\n")
    runs = folder.path.parent.parent
    path, python = shown(folder.path), python_command()
    config = load(folder.path / "config.yaml")
    tensorboard = python.removesuffix(Path(python).name) + "tensorboard"
    print(f"look at it:  {tensorboard} --logdir {shown(runs)}")
    print(f"judge it:    {python} evaluate.py run={path}")
    if program := _use(config, path):
        print(f"use it:      {python} {program}")
    print(f"try next:    {python} train.py -m {_sweep(folder.path, config)}")
    print(f"             {python} train.py --help")
    print(path, flush=True)
