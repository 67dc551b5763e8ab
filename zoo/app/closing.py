"""What train.py prints at the end of a run: the results, and which commands make sense next."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from zoo.app.commands import command, installed, relative
from zoo.app.place import RunLocation
from zoo.app.processes import is_first

_LEFT_OUT = ("seed=", "optimizer.lr=", "trainer.strategy=")  # A sweep is for one process.


def _sweep(run: Path, also: Sequence[str]) -> str:
    """The words of a sweep around a run: other seeds and, where there is one, learning rates."""
    from zoo.config.run_config import load, stored_words

    words = stored_words(run)
    words = [word for word in words if not word.startswith(_LEFT_OUT)]
    rate = load(run / "config.yaml")["optimizer"].get("lr")
    if isinstance(rate, int | float):
        words.append(f"optimizer.lr={rate / 2:g},{rate:g}")
    return shlex.join([*also, *words, "seed=1,2"])


def conclude(place: RunLocation) -> None:
    """Prints the results table, what to do next and, last, the run folder."""
    results, folder = place.results, place.folder
    if not is_first():
        return
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
        f"{results['seconds']:.1f} s, weights of step {results['selected_step']:,}, peak memory "
        f"{results['memory_mib']:,.0f} MiB"
    )
    print(f"ended by {results['ended_by']}\n")
    if (folder.path / "operators.txt").exists():
        print((folder.path / "operators.txt").read_text(encoding="utf-8"))
        print(f"trace for https://ui.perfetto.dev: {relative(folder.path / 'trace.json')}\n")
    runs = folder.path.parent  # Those of one experiment; TensorBoard ticks no more than 40.
    path = relative(folder.path)
    trusted = [word for word in place.also if word.startswith("trusted=")]
    run = shlex.join([f"run={path}", *trusted])
    print(f"look at it:  {installed('tensorboard')} --logdir {shlex.quote(relative(runs))}")
    print(f"judge it:    {command('evaluate.py')} {run}")
    for step in place.next_steps:
        file, _, arguments = step.replace("run={run}", run).partition(" ")
        print(f"use it:      {command(file)} {arguments}")
    steps = [f"{command('train.py')} --help"]
    if not place.resume:  # What else its first command line said is not in the folder.
        steps.insert(0, f"{command('train.py')} -m {_sweep(folder.path, place.also)}")
    print("try next:    " + "\n             ".join(steps))
    print(path, flush=True)
