"""Trains one experiment, many (`-m`), or goes on with a run (`resume=<folder>`).

    python train.py experiment=lenet_digits optimizer.lr=0.01 seed=3

This file is the map of the program: the parts are built in the order in which data flow through
them. `python train.py --help` lists what can stand in each place.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from zoo.app import main as program
from zoo.app.commands import printable
from zoo.app.place import RunLocation, require_effect
from zoo.app.processes import device_of, strategy_of
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
    from zoo.training.trainer import Trainer

    run = recipe.settings
    with as_config_error("trainer"):
        device = device_of(run.trainer)
        strategy = strategy_of(run.trainer, device, resume=place.resume)
    with strategy.main_first():
        data = place.set_up_data(recipe, device, (strategy.rank, strategy.world))
    recipe = recipe.fill_auto(data.all_facts(), data.resolved(), data.lacks())
    seed_everything(run.seed)
    model = strategy.build(recipe.model.build)
    notes = [*data.notes, *load_initial_weights(model, recipe, fresh=not place.resume)]
    if not strategy.is_sharded:  # Shards go there one at a time.
        model.to(device)
    task = recipe.task.build(model, **data.vocabularies)
    attach_other_runs(recipe, task, data, run=place.kept)
    strategy.wrap(task, device)
    optimizers = build_optimizers(recipe, task)

    def all_batches() -> Iterator[Any]:
        yield from place.set_up_data(recipe, device).batches("train", 0)

    with as_config_error("trainer"):
        trainer = Trainer(
            task,
            data,
            optimizers,
            schedule=recipe.schedule.build(),
            settings=run.trainer,
            seed=run.seed,
            checkpoints=run.callbacks.checkpoint,
            config=recipe.config,
            layer_gradients=recipe.settings.logger.layer_gradients,
            strategy=strategy,
            all_batches=all_batches if strategy.world > 1 else None,
        )
    require_effect(trainer.plan, place.overrides)
    place.require_same_selection(trainer)
    with as_config_error():
        trainer.dry_run()
    place.next_steps = task.next_steps(data)
    own = [callback.build() for callback in recipe.callbacks]
    if not strategy.is_main:
        if place.resume:
            trainer.restore(None)
        return trainer.fit(resume=place.resume)
    with place.open(recipe, device, data) as folder:
        callbacks = [*standard_callbacks(recipe, folder, place.changes), *own]
        if place.resume:
            with as_config_error():
                trainer.restore(folder, callbacks, checkpoint=place.checkpoint)
            place.require_work(trainer)
        place.describe(recipe, device, data, step=trainer.step)
        for note in notes:
            folder.announce(printable(note))  # Class names come from files.
        return trainer.fit(folder=folder, callbacks=callbacks, resume=place.resume)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the program on the words of the command line; returns the exit code."""
    return program.main(train, words)
