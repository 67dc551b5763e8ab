"""What every program on a stored run takes from its command line: parts, data, a seed, a file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.app.place import change_of_data
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, as_config_error

if TYPE_CHECKING:
    from zoo.app.rebuild import Evaluation
    from zoo.training.run_folder import RunFolder


class OmittedError(RuntimeError):
    """Some of what was asked for could not be done; the rest is."""


def rebuilt(line: CommandLine) -> "Evaluation":
    """The parts of the run that a command line names.

    Raises:
        ConfigError: there is no such run or checkpoint.
    """
    from zoo.app.rebuild import prepare_evaluation

    return prepare_evaluation(
        line.options["run"],
        line.overrides,
        checkpoint=line.options.get("checkpoint", "best"),
        trusted=line.trusted,
    )


def set_up_data(parts: "Evaluation", folder: "RunFolder") -> None:
    """Reads the data of a run; says so if they are no longer what they were.

    Raises:
        ConfigError: they cannot be used.
    """
    with as_config_error("data"):
        parts.data.setup(seed=parts.settings.seed, device=parts.device)
    if change := change_of_data(folder, parts.data):
        print(f"warning: {change}, if they are to be the same", file=sys.stderr)


def split_of(line: CommandLine, data: Any) -> str:
    """The split that a command line names; else test or, where the data have none, val.

    Raises:
        ConfigError: the data have no such split.
    """
    split = line.options.get("split", "test" if "test" in data.splits else "val")
    if split not in data.splits:
        raise ConfigError(f"split={split}: these data have {', '.join(data.splits)}")
    return split


def seed_of(line: CommandLine) -> int:
    """The seed of random numbers that a command line names.

    Raises:
        ConfigError: it is not a whole number that torch takes.
    """
    seed = line.integer("seed", 0, least=0)
    if seed >= 2**63:
        raise ConfigError(f"seed={seed}: must be below 2**63")
    return seed


def new_file(line: CommandLine) -> Path | None:
    """The file that a command line names for the results, if it does.

    Raises:
        ConfigError: it is there already, or its folder is not.
    """
    if "out" not in line.options:
        return None
    from zoo.app.output import check_new

    out = Path(line.options["out"])
    check_new(out)
    return out
