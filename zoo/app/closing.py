"""What train.py prints at the end of a run: the results, and which commands make sense next."""

import shlex
from pathlib import Path

from zoo.app.place import RunLocation


def _sweep(run: Path) -> str:
    """The words of a sweep around a run: other seeds and, where there is one, learning rates."""
    import yaml

    from zoo.config.run_config import load

    words = yaml.safe_load((run / "overrides.yaml").read_text(encoding="utf-8")) or []
    words = [word for word in words if not word.startswith(("seed=", "optimizer.lr="))]
    rate = load(run / "config.yaml")["optimizer"].get("lr")
    if isinstance(rate, int | float):
        words.append(f"optimizer.lr={rate / 2:g},{rate:g}")
    return shlex.join([*words, "seed=1,2"])


def conclude(place: RunLocation) -> None:
    """Prints the results table, what to do next and, last, the run folder."""
    from zoo.training.run_folder import python_command, shown

    results, folder = place.results, place.folder
    assert folder is not None
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
    tensorboard = python.removesuffix(Path(python).name) + "tensorboard"
    print(f"look at it:  {tensorboard} --logdir {shown(runs)}")
    print(f"judge it:    {python} evaluate.py run={path}")
    for step in place.next_steps:
        print(f"use it:      {python} {step.replace('{run}', path)}")
    print(f"try next:    {python} train.py -m {_sweep(folder.path)}")
    print(f"             {python} train.py --help")
    print(path, flush=True)
