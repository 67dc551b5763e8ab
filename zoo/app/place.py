"""Where the folder of a run is, and what is in it from the beginning."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.app.commands import relative
from zoo.config.errors import ConfigError, as_config_error
from zoo.config.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from zoo.data.module import DataModule
    from zoo.training.run_folder import RunFolder


@dataclass
class RunLocation:
    """Where the folder of one run is, or will be once everything is built.

    Attributes:
        parent: folder for a new run folder.
        name: its name; None: the time.
        overrides: words of the command line, for `overrides.yaml`.
        folder: the run folder, once there is one.
        resume: whether it was there before.
        results: of the run, once it is finished.
        next_steps: programs that make sense after it, see `Task.next_steps`.
    """

    parent: Path
    name: str | None = None
    overrides: Sequence[str] = ()
    folder: "RunFolder | None" = None
    resume: bool = False
    results: dict[str, Any] = field(default_factory=dict)
    next_steps: Sequence[str] = ()

    def set_up_data(self, recipe: Recipe, device: "torch.device") -> "DataModule":
        """The data of the run, set up, with what the run has learned from them before.

        Raises:
            ConfigError: the data refuse a value, or a file of what was learned is damaged.
        """
        from zoo.app.build import build_data

        data = build_data(recipe, self.folder.path if self.folder and self.resume else None)
        with as_config_error("data"):
            data.setup(seed=recipe.settings.seed, device=device)
        return data

    @contextlib.contextmanager
    def open(
        self, recipe: Recipe, device: "torch.device", data: "DataModule"
    ) -> Iterator["RunFolder"]:
        """Makes (or takes up) the run folder, locked, with all that the run is rebuilt from.

        Raises:
            ConfigError: the run goes on, and its data have become more or fewer.
        """
        import yaml

        from zoo.config.run_config import dump
        from zoo.training.run_folder import RunFolder, RunFolderError, environment

        if self.folder is None:
            folder = RunFolder.create(self.parent, self.name)
            try:
                folder.reserve()
            except RunFolderError:
                folder.path.rmdir()  # Nothing has been written, and nothing can be.
                raise
            self.folder = folder
        with self.folder.lock():
            if self.resume and (change := change_of_data(self.folder, data)):
                raise ConfigError(f"resume={self.folder.path}: {change}, or begin a new run")
            self.folder.write("config.yaml", dump(recipe.config))
            self.folder.write("data.json", samples(data))
            if not self.resume:
                words = yaml.safe_dump(list(self.overrides), sort_keys=False)
                self.folder.write("overrides.yaml", words)
            self.folder.write("environment.json", environment(str(device)))
            for name, text in data.artifacts().items():
                self.folder.write(name, text)
            verb = "going on" if self.resume else "training"
            where = f"{relative(self.folder.path)} on {device}"
            kept = relative(Path(recipe.settings.paths.data_dir))
            print(f"{verb} in {where}, data in {kept}", flush=True)
            yield self.folder


def samples(data: "DataModule") -> dict[str, int]:
    """How many samples each split of a data module has that has been set up."""
    return {split: loader.num_samples for split, loader in data.loaders.items()}


def change_of_data(folder: "RunFolder", data: "DataModule") -> str:
    """What is wrong with the data of a run, if they have become more or fewer since it began.

    Where the splits are parts of the same files, other samples would now be in each of them.
    """
    before, now = folder.read("data.json"), samples(data)
    changes = [
        f"{count:,} samples in {split}, where there were {before[split]:,}"
        for split, count in now.items()
        if isinstance(before.get(split), int) and before[split] != count
    ]
    return f"these data have {' and '.join(changes)}: put them back as they were" if changes else ""


Train = Callable[[Recipe, RunLocation], dict[str, Any]]
"""Builds and trains one run: of a recipe and a location."""
