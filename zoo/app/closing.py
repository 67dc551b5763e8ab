"""What train.py prints at the end of a run: the results, and which commands make sense next."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from zoo.app.commands import command, installed, relative
from zoo.app.place import RunLocation


def _sweep(run: Path, config_dir: str | None) -> str:
    """The words of a sweep around a run: other seeds and, where there is one, learning rates.

    Empty for a run that is resumed and that began with groups of the user's own: where these are
    is not known any more.
    """
    from zoo.config.compose import GROUPS, options
    from zoo.config.run_config import load, stored_words

    words = [w for w in stored_words(run) if not w.startswith(("seed=", "optimizer.lr="))]
    for group, _, option in (word.lstrip("+").partition("=") for word in words):
        if group in GROUPS and option != "null" and option not in options(group, config_dir):
            return ""
    rate = load(run / "config.yaml")["optimizer"].get("lr")
    if isinstance(rate, int | float):
        words.append(f"optimizer.lr={rate / 2:g},{rate:g}")
    return shlex.join([*words, "seed=1,2"])


def conclude(place: RunLocation) -> None:
    """Prints the results table, what to do next and, last, the run folder."""
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
        f"{results['seconds']:.1f} s, weights of step {results['selected_step']:,}"
    )
    print(f"ended by {results['ended_by']}\n")
    if (folder.path / "operators.txt").exists():
        print((folder.path / "operators.txt").read_text(encoding="utf-8"))
        print(f"trace for https://ui.perfetto.dev: {relative(folder.path / 'trace.json')}\n")
    for label, line in _next(place, folder.path):
        print(f"{label:<13}{line}")
    print(relative(folder.path), flush=True)


def _next(place: RunLocation, folder: Path) -> Iterator[tuple[str, str]]:
    """Commands that make sense next, to be copied as they are."""
    run, trusted = shlex.quote(relative(folder)), ""
    if place.trusted:
        trusted = " " + shlex.quote(f"trusted=[{','.join(place.trusted)}]")
    own = f" --config-dir {shlex.quote(place.config_dir)}" if place.config_dir else ""
    runs = shlex.quote(relative(folder.parent.parent))
    yield "look at it:", f"{shlex.quote(installed('tensorboard'))} --logdir {runs}"
    yield "judge it:", f"{command('evaluate.py')} run={run}{trusted}"
    for step in place.next_steps:
        file, _, arguments = step.replace("{run}", run).partition(" ")
        yield "use it:", f"{command(file)} {arguments}{trusted}"
    if words := _sweep(folder, place.config_dir):
        yield "try next:", f"{command('train.py')}{own} -m {words}{trusted}"
    yield "", f"{command('train.py')} --help"
