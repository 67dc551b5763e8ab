"""The run that a command line means: its folder, a file within it, or `latest`."""

import os
from pathlib import Path

from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError

DEPTH = 3
"""Folders between `paths.runs_dir` and a run: its name and, in a sweep, the sweep."""


def find_run(line: CommandLine, key: str) -> Path:
    """The folder of the run that `run=` or `resume=` names.

    It may be named by a file within it; a checkpoint is the one to use or to go on from. `latest`
    is the run below `paths.runs_dir` that wrote last. What was found is put into the line's
    options.

    Raises:
        ConfigError: there is no such run, or several.
    """
    text = line.options[key]
    path = Path(text).expanduser()
    if text == "latest" and not path.exists():
        path = _latest(_runs_dir(line))
    elif not path.exists():
        raise ConfigError(f"{key}={text}: there is no such folder")
    folder = path if path.is_dir() else path.parent
    if path.suffix == ".pt":
        folder = _check_checkpoint(line, key, path)
    elif folder.name == "checkpoints":
        folder = folder.parent
    if not (folder / "config.yaml").exists():
        _refuse(key, text, folder)
    line.options[key] = str(folder)
    return folder


def _check_checkpoint(line: CommandLine, key: str, path: Path) -> Path:
    """The run folder of a checkpoint, which becomes the one that is used."""
    from zoo.training.checkpoints.checkpoint import KEPT

    name = path.stem if path.stem in KEPT else str(path)
    given = line.options.setdefault("checkpoint", name)
    if given != name:
        raise ConfigError(f"{key}={path}: names a checkpoint, and checkpoint={given} another")
    return path.parent.parent


def checkpoint_of(run: Path, name: str) -> str:
    """The checkpoint of a run that is meant: `last`, `best`, `previous` or the path of a file.

    It may be named by its path or, in the run's own folder, by its name.

    Raises:
        ConfigError: there is no such file.
    """
    from zoo.training.checkpoints.checkpoint import KEPT

    own = run / "checkpoints"
    for file in (Path(name), own / name, own / f"{name}.pt"):
        if name not in KEPT and file.is_file():
            return str(file)
    if name not in KEPT:
        names = ", ".join(sorted(f.stem for f in own.glob("*.pt")))
        raise ConfigError(f"checkpoint={name}: there is no such file; this run has {names}")
    return name


def _runs_dir(line: CommandLine) -> Path:
    words = (word.lstrip("+").partition("=")[::2] for word in line.overrides)
    return Path(dict(words).get("paths.runs_dir", "runs")).expanduser()


def runs_below(folder: Path) -> list[Path]:
    """The run folders below a folder, the one that wrote last at the end."""
    found: dict[Path, float] = {}
    for depth in range(1, DEPTH + 1):
        for status in folder.glob("*/" * depth + "status.json"):
            if (status.parent / "config.yaml").exists():
                found[status.parent] = status.stat().st_mtime
    return sorted(found, key=lambda path: (found[path], str(path)))


def _latest(runs_dir: Path) -> Path:
    runs = runs_below(runs_dir)
    if not runs:
        raise ConfigError(f"latest: there is no run below {runs_dir}{os.sep}")
    print(f"latest: {runs[-1]}", flush=True)
    return runs[-1]


def _refuse(key: str, text: str, folder: Path) -> None:
    """Says which runs a folder that is not one holds."""
    runs = runs_below(folder)
    if runs:
        raise ConfigError(
            f"{key}={text}: is not a run but holds {len(runs)}; the latest is {key}={runs[-1]}"
        )
    raise ConfigError(f"{key}={text} is not a run folder: config.yaml cannot be read")
