"""Trains one experiment, many (`-m`), or goes on with a run (`resume=<folder>`).

    python train.py experiment=lenet_digits optimizer.lr=0.01 seed=3

This file is the map of the program: the parts are built in the order in which data flow through
them. `python train.py --help` lists what can stand in each place.
"""

from collections.abc import Sequence
from typing import Any

from zoo.app import main as program
from zoo.app.place import RunLocation
from zoo.config.compose import run_settings
from zoo.config.errors import as_config_error


def train(
    config: dict[str, Any], place: RunLocation, trusted: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Builds every part of one run, then the run folder, and trains.

    Args:
        config: the complete, checked configuration.
        place: where the run folder is or will be.
        trusted: packages whose components may be built.

    Returns:
        The results, as in `results.json`.
    """
    # Heavy imports stand here, so that `--help` and mistakes are answered before torch is loaded.
    from zoo.app.build import (
        begin_from,
        build_data,
        build_optimizers,
        build_task,
        fill_from_data,
        own_callbacks,
        standard_callbacks,
    )
    from zoo.config.build import build
    from zoo.training.precision import resolve_device
    from zoo.training.reproducibility import seed_everything
    from zoo.training.trainer import Trainer

    run = run_settings(config)
    with as_config_error("trainer"):
        device = resolve_device(run.trainer.device)
    data = build_data(config, trusted, folder=place.folder.path if place.resume else None)
    with as_config_error("data"):
        data.setup(seed=run.seed, device=device)
    config = fill_from_data(config, data)
    seed_everything(run.seed)
    model = build(config["model"], "model", "model", trusted=trusted)
    notes = begin_from(model, config, fresh=not place.resume, trusted=trusted)
    task = build_task(config, model.to(device), data, trusted)
    optimizers = build_optimizers(config, task, trusted=trusted)
    schedule = build(config["schedule"], "schedule", "schedule", trusted=trusted)
    with as_config_error("trainer"):
        trainer = Trainer(
            task,
            data,
            optimizers,
            schedule=schedule,
            settings=run.trainer,
            seed=run.seed,
            checkpoints=run.callbacks.checkpoint,
            config=config,
            layer_gradients=run.logger.layer_gradients,
        )
    with as_config_error():
        trainer.dry_run()
    own = own_callbacks(run, trusted)
    with place.open(config, device, data) as folder:
        for note in notes:
            folder.tell(note)
        callbacks = standard_callbacks(config, run, folder) + own
        return trainer.fit(folder=folder, callbacks=callbacks, resume=place.resume)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the program on the words of the command line; returns the exit code."""
    return program.main(train, words)
