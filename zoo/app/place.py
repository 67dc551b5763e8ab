"""Where the folder of a run is, and what lies in it from the beginning."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.config.errors import ConfigError


@dataclass
class RunLocation:
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

        from zoo.app.words import shown
        from zoo.config.run_config import dump
        from zoo.training.run_folder import RunFolder, environment

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


Train = Callable[[dict[str, Any], RunLocation, tuple[str, ...]], dict[str, Any]]
"""Builds and trains one run: of a configuration, a location, and the trusted packages."""
