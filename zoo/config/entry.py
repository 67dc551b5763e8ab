"""From the words of a command line to runs, and from what goes wrong to a line and an exit code.

Exit codes: 0 finished, 1 failed, 2 wrong configuration, 130 Ctrl-C and 143 SIGTERM after saving.
"""

import contextlib
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.config.command_line import FLAGS, CommandLine, parse_words
from zoo.config.errors import ConfigError, one_line

Train = Callable[[dict[str, Any], "Place", tuple[str, ...]], dict[str, Any]]


@contextlib.contextmanager
def refusals(key: str = "") -> Iterator[None]:
    """Turns a refused value inside the block into a `ConfigError` that names the part."""
    try:
        yield
    except (ValueError, TypeError) as error:
        text = one_line(error)
        joint = "." if re.match(r"\w+=", text) else ": "
        raise ConfigError(f"{key}{joint}{text}" if key else text) from error


def failure(error: BaseException) -> tuple[int, str]:
    """The exit code of an exception and what to say about it."""
    kind = type(error)
    if isinstance(error, ConfigError):
        return 2, f"error: {one_line(error)}"
    if kind.__name__ == "Interrupted":
        return getattr(error, "exit_code", 1), f"{error}; the state is saved"
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped at once; the last checkpoint stands"
    if kind.__name__ == "OutOfMemoryError":
        advice = "use a smaller data.batch_size with a larger trainer.accumulate"
        return 1, f"error: the device has too little memory ({one_line(error)[:200]}); {advice}"
    if kind.__module__.startswith("zoo.") and isinstance(error, RuntimeError):
        return 1, f"error: {one_line(error)}"
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return 1, f"error: {error.strerror}{where}"
    return 1, "".join(traceback.format_exception(error)).rstrip()


def report(error: BaseException) -> int:
    """Prints what went wrong to standard error; returns the exit code."""
    code, text = failure(error)
    if os.environ.get("ZOO_TRACEBACK"):
        traceback.print_exception(error)
    print(text, file=sys.stderr, flush=True)
    return code


@dataclass
class Place:
    """Where the folder of one run is, or will be once everything is built.

    Attributes:
        parent: folder for a new run folder.
        name: its name; None: the time.
        overrides: words of the command line, for `overrides.yaml`.
        folder: the run folder, once there is one.
        resume: whether it was there before.
    """

    parent: Path
    name: str | None = None
    overrides: Sequence[str] = ()
    folder: Any = None
    resume: bool = False
    results: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def open(self, config: dict[str, Any], device: Any, data: Any) -> Iterator[Any]:
        """Makes (or takes up) the run folder, locked, with all that the run is rebuilt from.

        Raises:
            ConfigError: the run goes on, and its data have become more or fewer.
        """
        import yaml

        from zoo.config.stored import dump
        from zoo.training.run_folder import RunFolder, environment, shown

        if self.folder is None:
            self.folder = RunFolder.create(self.parent, self.name)
        with self.folder.lock():
            if self.resume and (change := change_of_data(self.folder, data)):
                raise ConfigError(f"resume={self.folder.path}: {change}, or begin a new run")
            self.folder.write("config.yaml", dump(config))
            self.folder.write("data.json", samples(data))
            if not self.resume:
                words = yaml.safe_dump(list(self.overrides), sort_keys=False)
                self.folder.write("overrides.yaml", words)
            self.folder.write("environment.json", environment(str(device)))
            for name, vocabulary in data.vocabularies.items():
                self.folder.write(f"{name}.json", vocabulary.to_json())
            verb = "going on" if self.resume else "training"
            print(f"{verb} in {shown(self.folder.path)} on {device}", flush=True)
            yield self.folder


def samples(data: Any) -> dict[str, int]:
    """How many samples each split of a data module has that has been set up."""
    return {split: loader.num_samples for split, loader in data.loaders.items()}


def change_of_data(folder: Any, data: Any) -> str:
    """What is wrong with the data of a run, if they have become more or fewer since it began.

    Where the splits are parts of the same files, other samples would now be in each of them.
    """
    before, now = folder.read("data.json"), samples(data)
    changes = [
        f"{count:,} samples in {split}, where there were {before[split]:,}"
        for split, count in now.items()
        if before.get(split, count) != count
    ]
    return f"these data have {' and '.join(changes)}: put them back as they were" if changes else ""


def main(train: Train, words: Sequence[str] | None = None) -> int:
    """Runs `train.py`.

    Args:
        train: builds and trains one run.
        words: of the command line; None: the process's own.

    Returns:
        The exit code.
    """
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        line = parse_words(sys.argv[1:] if words is None else words, paths=("resume",), flags=FLAGS)
        if "--help" in line.flags:
            from zoo.config.help import text

            print(text())
            return 0
        if "--version" in line.flags:
            show_version()
            return 0
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:
            raise ConfigError("torchrun: one process trains one run; start train.py by itself")
        if "resume" in line.paths:
            return _resume(train, line)
        if "--cfg" in line.flags:
            return _show(line)
        if "--multirun" in line.flags:
            from zoo.config.sweep import sweep

            return sweep(train, line)
        return _single(train, line)
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
    except BaseException as error:
        if type(error).__name__ == "Interrupted":
            return report(error)
        raise


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    """A warning as one line, without the line of source that raised it."""
    if not issubclass(category, DeprecationWarning | FutureWarning):
        print(f"warning: {one_line(message)}", file=sys.stderr, flush=True)


def show_version() -> None:
    """Prints the versions that a report of a problem should name."""
    from importlib.metadata import version

    from zoo import __version__

    print(f"zoo {__version__}, torch {version('torch')}, Python {sys.version.split()[0]}")


def _show(line: CommandLine) -> int:
    from zoo.config.compose import compose
    from zoo.config.stored import dump

    if line.flags["--cfg"] != "job":
        raise ConfigError(f"--cfg {line.flags['--cfg']}: must be job (--cfg job)")
    if "--multirun" in line.flags:
        raise ConfigError("--cfg job shows one configuration; leave -m away")
    config = compose(
        line.overrides, config_dir=line.flags.get("--config-dir"), trusted=line.trusted
    )
    print(dump(config), end="")
    return 0


def _single(train: Train, line: CommandLine) -> int:
    from zoo.config.compose import compose

    config = compose(
        line.overrides, config_dir=line.flags.get("--config-dir"), trusted=line.trusted
    )
    place = Place(Path(config["paths"]["runs_dir"]) / config["name"], overrides=line.overrides)
    place.results = train(config, place, line.trusted)
    conclude(place)
    return 0


def _resume(train: Train, line: CommandLine) -> int:
    from zoo.config.compose import complete
    from zoo.config.stored import load, merge
    from zoo.training.run_folder import RunFolder, shown

    path = Path(line.paths["resume"])
    if line.flags:
        flags = " ".join(line.flags)
        raise ConfigError(f"resume={path} {flags}: takes up one run as it is; leave {flags} away")
    if not path.is_dir():
        raise ConfigError(f"resume={path}: there is no such folder")
    config = merge(complete(load(path / "config.yaml")), line.overrides, line.trusted)
    folder = RunFolder(path)
    finished = folder.read("status.json").get("state") == "finished"
    if finished and not line.overrides:
        print(f"this run is finished; prolong it with trainer.epochs=<more>\n{shown(path)}")
        return 0
    place = Place(path.parent, folder=folder, resume=True)
    place.results = train(config, place, line.trusted)
    conclude(place)
    return 0


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


def conclude(place: Place) -> None:
    """Prints the results table, what to do next and, last, the run folder."""
    from zoo.config.stored import load
    from zoo.training.run_folder import python_command, shown

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
