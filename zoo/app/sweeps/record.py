"""What the folder of a sweep says of it, so that the sweep goes on: `sweep.yaml`.

The folder holds the words of the runs. It may come from somebody else, so what could run their code
is said on the command line alone, each time: packages that are trusted, a folder of configurations,
and Hydra's launcher.
"""

import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import yaml

from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError
from zoo.config.yaml_files import load_yaml

FILE = "sweep.yaml"


@dataclass(frozen=True)
class SweepRecord:
    """What a sweep was told.

    Attributes:
        words: the overrides of all its runs, with several values where they differ.
        also: the other words that the same configurations need: `--config-dir` and `trusted=`.
        hydra: what chose the launcher or the sweeper.
    """

    words: list[str]
    also: list[str]
    hydra: list[str]

    def text(self) -> str:
        """The content of the file."""
        text: str = yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)
        return text


def read_record(folder: Path) -> SweepRecord:
    """What the folder of a sweep says.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        found = load_yaml(folder / FILE)
    except OSError as error:
        raise ConfigError(f"{folder / FILE}: {error.strerror}") from error
    names = {field.name for field in fields(SweepRecord)}
    is_whole = isinstance(found, dict) and set(found) == names
    lists = found.values() if is_whole else ()
    if not is_whole or not all(
        isinstance(words, list) and all(isinstance(word, str) for word in words) for words in lists
    ):
        raise ConfigError(f"{folder / FILE}: must hold lists of words: {', '.join(sorted(names))}")
    record = SweepRecord(**found)
    if other := next((w for w in record.words if w.lstrip("+~").startswith("hydra")), None):
        raise ConfigError(f"{folder / FILE}: {other}: is no word of a run")
    return record


def sweep_of(line: CommandLine) -> Path | None:
    """The folder of the sweep that `resume=` names, by itself or a file in it; None: it is none.

    Raises:
        ConfigError: it is a sweep of an earlier version.
    """
    path = Path(line.options["resume"]).expanduser()
    folder = path.parent if path.name in (FILE, "sweep.csv", "multirun.yaml") else path
    if (folder / "config.yaml").exists():
        return None
    if (folder / FILE).exists():
        return folder
    if (folder / "multirun.yaml").exists():
        raise ConfigError(
            f"resume={line.options['resume']}: is a sweep of an earlier version, which did not "
            f"note what it was to run; go on with its runs one by one ({_first_unfinished(folder)})"
        )
    return None


def _first_unfinished(folder: Path) -> str:
    """The word that resumes the first run of a sweep that is to go on."""
    from zoo.training.run_folder import RunFolder

    runs = sorted(file.parent for file in folder.glob("*/config.yaml"))
    states = {run: RunFolder(run).read_status().get("state") for run in runs}
    run = next((run for run, state in states.items() if state != "finished"), "<run folder>")
    return f"resume={run}"


def check_line(folder: Path, record: SweepRecord, line: CommandLine) -> None:
    """Refuses a command line that a sweep cannot go on with.

    Raises:
        ConfigError: it changes the runs, or lacks what only it can say.
    """
    named = f"resume={line.options['resume']}"
    if "checkpoint" in line.options:
        raise ConfigError(f"{named}: the runs of a sweep go on from their last; omit checkpoint=")
    if flags := [flag for flag in line.flags if flag != "--config-dir"]:
        raise ConfigError(f"{named}: goes on with the sweep as it is; omit {' '.join(flags)}")
    for word in line.overrides:
        if not word.startswith(("hydra/launcher", "hydra.launcher")):
            raise ConfigError(f"{word}: a sweep goes on with the words it was begun with; omit it")
    if searcher := next((w for w in record.hydra if w.startswith("hydra/sweeper")), None):
        raise ConfigError(
            f"{named}: was begun with {searcher}, which chooses values and does not know those "
            "that it has tried; go on with single runs, or begin a new sweep"
        )
    given, begun = (
        [word.partition("=")[0] for word in words if word.startswith(("--", "trusted="))]
        for words in (line.also(), record.also)
    )
    if missing := [word for word in begun if word not in given]:
        raise ConfigError(
            f"{named}: was begun with {shlex.join(record.also)}; give {' and '.join(missing)} "
            "again, since a folder cannot say what is trusted"
        )
