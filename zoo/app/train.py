"""Trains one experiment, many (`-m`), or goes on with a run (`resume=<folder>`).

    python train.py experiment=lenet_digits optimizer.lr=0.01 seed=3

This file is the map of the program: the parts are built in the order in which data flow through
them. `python train.py --help` lists what can stand in each place.
"""

from collections.abc import Sequence
from typing import Any

from zoo.app import main as program
from zoo.app.place import RunLocation, require_effect
from zoo.app.processes import device_and_strategy
from zoo.config.errors import as_config_error
from zoo.config.recipe import Recipe


def train(recipe: Recipe, place: RunLocation) -> dict[str, Any]:
    """Builds every part of one run, then the run folder, and trains.

    Args:
        recipe: the checked configuration.
        place: where the run folder is or will be.

    Returns:
        The results, as in `results.json`.
    """
    # Heavy imports stand here, so that `--help` and mistakes are answered before torch is loaded.
    from zoo.app.attached_runs import attach_other_runs
    from zoo.app.build import build_optimizers, load_initial_weights, standard_callbacks
    from zoo.training.reproducibility import seed_everything
    from zoo.training.schedules import make_schedule
    from zoo.training.trainer import Trainer

    run = recipe.settings
    with as_config_error("trainer"):
        device, strategy = device_and_strategy(run.trainer, resume=place.resume)
    with strategy.main_first():
        data = place.set_up_data(recipe, device, (strategy.rank, strategy.world))
    recipe = recipe.fill_auto(data.all_facts(), data.resolved(), data.lacks())
    seed_everything(run.seed)
    model = strategy.build(recipe.model.build, device)
    notes = load_initial_weights(model, recipe, fresh=not place.resume)
    task = recipe.task.build(model, **data.vocabularies)
    attach_other_runs(recipe, task, data, run=place.kept)
    strategy.wrap(task, device)
    with as_config_error("trainer"):
        trainer = Trainer(
            task,
            data,
            build_optimizers(recipe, task),
            schedule=recipe.schedule.build_with(make_schedule),
            settings=run.trainer,
            seed=run.seed,
            checkpoints=run.callbacks.checkpoint,
            config=recipe.config,
            layer_gradients=recipe.settings.logger.layer_gradients,
            strategy=strategy,
            all_batches=place.all_batches(recipe, device),
        )
    require_effect(trainer.plan, place.overrides)
    place.require_same_selection(trainer)
    with as_config_error():
        trainer.dry_run()
    own = [*(callback.build() for callback in recipe.callbacks), *place.callbacks]
    with place.open(recipe, device, data) as folder:  # None but in the first process.
        callbacks = [*standard_callbacks(recipe, folder, place.changes), *own] if folder else []
        if place.resume:
            with as_config_error():
                trainer.restore(folder, callbacks, checkpoint=place.checkpoint)
            place.require_work(trainer)
        place.describe(recipe, data, trainer, [*data.notes, *notes])
        return trainer.fit(folder=folder, callbacks=callbacks, resume=place.resume)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the program on the words of the command line; returns the exit code."""
    return program.main(train, words)
