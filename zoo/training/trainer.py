"""The training loop: when to step, to log, to evaluate and to save.

It knows no task. A task yields objectives (Goodfellow's discriminator and generator, or the one
loss of an ordinary task), and the update of each is taken before the next is asked for. Read `fit`
and `_loop` here, then `step.py` (one step on a window of batches) and `update.py` (from gradients
to weights). How long a run is stands in `plan.py`, what a checkpoint holds in `state.py`, when it
is written in `checkpoints/saving.py`, and which weights a run ends with in `selection.py`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from zoo.tasks.task import Shown, Task
from zoo.training.averaging import WeightAverage
from zoo.training.callback import Callback, Callbacks
from zoo.training.checkpoints.checkpoint import CheckpointFolder, well_formed
from zoo.training.checkpoints.saving import Saving
from zoo.training.compilation import Compilation
from zoo.training.curve import TrainingCurve, forget_peak, peak_memory
from zoo.training.distributed.strategy import OneProcess, Strategy
from zoo.training.evaluation import Evaluation
from zoo.training.freezing import training_mode
from zoo.training.graphs.requirements import MakeRunner, require_capturable, require_static_step
from zoo.training.graphs.runners import CudaRunner
from zoo.training.graphs.stepper import CapturedStepper
from zoo.training.interruption import Interrupted, Signals
from zoo.training.optimizers import by_network, require_groups
from zoo.training.overfit import FirstBatch
from zoo.training.plan import Plan
from zoo.training.precision import prepare
from zoo.training.rates import Rates
from zoo.training.rehearsal import Rehearsal, rehearse
from zoo.training.reporting import Reporter
from zoo.training.reproducibility import SEED, backends, isolated, seed_everything, stream
from zoo.training.run_folder import RunFolder
from zoo.training.schedules import Constant, Schedule
from zoo.training.searching import require_full_batch, require_same_objective
from zoo.training.selection import Selection
from zoo.training.settings import CheckpointSettings, TrainerSettings
from zoo.training.state import Position, RunState
from zoo.training.step import Stepper
from zoo.training.update import NonFiniteError, Updater
from zoo.training.utilization import items_at_peak


class Trainer:
    """Trains the networks of a task on the batches of a data module.

    Args:
        task: what is learned.
        data: where the batches come from, set up (see `zoo.data.module.DataModule`).
        optimizers: one optimizer per network of the task, by the network's name; a single optimizer
            for a task with one network.
        schedule: factor of the learning rates; constant if None.
        settings: how long, where and how precisely.
        seed: seed of dropout and noise (the order of the data has the seed given to its setup).
        checkpoints: when to save, and what to monitor.
        config: plain configuration, stored in every checkpoint.
        layer_gradients: whether the training curve has the gradient norm of each parameter.
        strategy: which processes share the work; its `wrap` has prepared the task's networks
            before the optimizers were made. One process if None.
        all_batches: gives the training batches whole, for a task that looks at them before the
            first step, where `data` give each process its part; None: `data` give them.
        make_runner: what captures the steps with ``trainer.cuda_graphs``.

    Raises:
        ValueError: the optimizers are not those of the task's networks, they have no group of a
            name for which there is a schedule, the data have no training split, the device is not
            there, or strategy or optimizer cannot do what the settings ask for.
    """

    def __init__(
        self,
        task: Task,
        data: Any,
        optimizers: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer],
        *,
        schedule: Schedule | None = None,
        settings: TrainerSettings | None = None,
        seed: int = 0,
        checkpoints: CheckpointSettings | None = None,
        config: dict[str, Any] | None = None,
        layer_gradients: bool = False,
        strategy: Strategy | None = None,
        all_batches: Callable[[], Iterable[Any]] | None = None,
        make_runner: MakeRunner = CudaRunner,
    ) -> None:
        self.settings = settings = settings or TrainerSettings()
        if "train" not in data.splits:
            raise ValueError("the data have no training split")
        self.data = FirstBatch(data) if settings.overfit else data
        self.task, self.seed = task, seed
        self._all_batches = all_batches or partial(self.data.batches, "train", 0)
        self.strategy = strategy or OneProcess()
        self.networks: dict[str, nn.Module] = task.networks()
        self.optimizers = by_network(optimizers, self.networks)
        self.schedule = schedule or Constant()
        require_groups(self.schedule.groups, self.optimizers)
        self.rates = Rates(self.schedule, self.networks, task.update_every)
        self.device, dtype = prepare(task, settings, is_sharded=self.strategy.is_sharded)
        self.captured: CapturedStepper | None = None
        self._make_runner = make_runner
        if settings.cuda_graphs:
            make_runner(self.device)  # Where there is no such device, nothing else is said.
            require_capturable(task, settings, self.optimizers, dtype, self.strategy)
        self.compilation = Compilation(task, str(settings.compile))
        decay = settings.ema_decay
        local = self.strategy.local
        self.average = WeightAverage(task.model, decay, local) if decay is not None else None
        self.updater = Updater(
            task.model,
            self.optimizers,
            device=self.device,
            dtype=dtype,
            clip_norm=settings.clip_norm,
            clip_value=settings.clip_value,
            layer_gradients=layer_gradients,
            strategy=self.strategy,
        )
        peak = items_at_peak(task.model, self.device, dtype, world=self.strategy.world)
        self.curve = TrainingCurve(list(self.networks), self.device, items_at_peak=peak)
        self.state = RunState(
            task=task,
            optimizers=self.optimizers,
            schedule=self.rates,
            average=self.average,
            updater=self.updater,
            curve=self.curve,
            strategy=self.strategy,
            config=config,
        )
        self.plan = Plan(settings, self.data)
        if self.updater.searches:
            require_full_batch(task, settings, self.plan, dtype, self.strategy)
        self.rates.bind(
            total_steps=self.plan.total_steps, steps_per_epoch=self.plan.steps_per_epoch
        )
        self.signals, self.stopped = Signals(), False
        self._stopped_by: str | None = None
        self._restored, self._processes_before = False, self.strategy.world
        self._shown: dict[str, Shown] | None = None
        self.evaluation = Evaluation(
            task,
            self.data,
            limit=settings.limit_eval_batches,
            autocast=self.updater.autocast,
            between=lambda: self.saving.check(),
            strategy=self.strategy,
            stand_in=self._stand_in,
        )
        self.checkpoint_settings = checkpoints or CheckpointSettings()
        self.selection = Selection(
            task, self.checkpoint_settings, is_validated="val" in data.splits
        )
        self.checkpoints: CheckpointFolder | None = None
        self._open(None, ())

    @property
    def position(self) -> Position:
        """How far the run has come."""
        return self.state.position

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return self.state.position.step

    @property
    def total_steps(self) -> int:
        """Optimizer steps at its end."""
        return self.plan.total_steps

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a pass over the training data."""
        return self.plan.steps_per_epoch

    @property
    def ended_by(self) -> str | None:
        """What has ended the run, as `setting=value` where it is one; None: it goes on."""
        return self._stopped_by or (self.plan.ends_by if self.step >= self.total_steps else None)

    @property
    def monitor(self) -> str:
        """The validation metric that selects checkpoints."""
        return self.selection.monitor

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether less or more of it is better."""
        return self.selection.mode

    # ------------------------------------------------------------------------------- the run

    def fit(
        self,
        *,
        folder: RunFolder | None = None,
        callbacks: Sequence[Callback] = (),
        resume: bool = False,
    ) -> dict[str, Any]:
        """Trains to the end, evaluates the selected weights, and returns the results.

        Afterwards the model holds the selected weights: those of the best checkpoint, or the last
        ones where there is no folder or no validation split.

        Args:
            folder: where checkpoints and results go; None: nowhere.
            callbacks: what happens besides the loop.
            resume: go on from the newest checkpoint of the folder.

        Returns:
            `{"val": {...}, "test": {...}, "parameters": n, "steps": n, "selected_step": n,
            "ended_by": setting, "seconds": s, "samples_per_second": r, "memory_mib": m}`.

        Raises:
            Interrupted: a signal asked for the end, or the time limit is over; the state has been
                saved.
            NonFiniteError: a loss or gradient was NaN or infinite.
            CheckpointError: a checkpoint could not be written or read.
            RunFolderError: the folder holds a run, and this is another.
            ValueError: the optimizers are no longer those of the task's networks.
        """
        settings, results = self.settings, None
        by_network(self.optimizers, self.task.networks())  # A part may have been replaced since.
        if folder is not None and not resume:
            folder.require_unused()
        with ExitStack() as stack:
            stack.enter_context(
                backends(deterministic=settings.deterministic, threads=settings.threads)
            )
            stack.enter_context(self.signals)
            if folder is not None:
                stack.enter_context(folder.lock())
            if not resume:
                self._open(folder, callbacks)
            elif not self._restored:
                self.restore(folder, callbacks)
            self._restored = False
            if folder is not None:
                stack.enter_context(folder.reporting())
            try:
                self._begin(resume)
                self._train()
                results = self._finish()
            except Interrupted as error:
                error.step = self.step
                raise
            except RuntimeError as error:
                self.strategy.explain(error)
                raise
            finally:
                self.task.end_turn()  # One that an error has cut short.
                self.callbacks.on_fit_end(self, results)
        return results

    def restore(
        self,
        folder: RunFolder | None,
        callbacks: Sequence[Callback] = (),
        *,
        checkpoint: str = "last",
    ) -> None:
        """Loads the state from which `fit(resume=True)` goes on, and changes nothing in the folder.

        Whoever wants to look at the position, or to refuse it, calls this before `fit`.

        Args:
            folder: the run folder.
            callbacks: those that `fit` will be given.
            checkpoint: `last` (or the one before it, where that is damaged), `best`, `previous` or
                a path.

        Raises:
            CheckpointError: the checkpoint cannot be read, or is that of another model or run.
            ValueError: there is no folder, or an optimizer cannot go on with its arguments.
        """
        self._open(folder, callbacks)
        state = None
        if self.strategy.is_main:
            if self.checkpoints is None:
                raise ValueError("resume needs a folder")
            state = self.checkpoints.earlier(checkpoint, whole=not self.strategy.is_sharded)
        state = self.strategy.share_state(state)
        assert state is not None
        self.load_state_dict(state)
        self._processes_before = len(state["ranks"])
        if reason := self.callbacks.reason_to_stop(self):
            self.stopped, self._stopped_by = True, reason
        self._share_stop()
        self._restored = True

    def _open(self, folder: RunFolder | None, callbacks: Sequence[Callback]) -> None:
        self.folder, self.callbacks = folder, Callbacks(callbacks)
        self.state.callbacks = self.callbacks
        if folder is not None:
            self.checkpoints = CheckpointFolder(
                folder.path / "checkpoints",
                mode=self.mode,
                top_k=self.checkpoint_settings.top_k,
            )
        self.reporter = Reporter(self, self.callbacks, self.plan, self.curve, self.updater, folder)
        self.saving = Saving(
            self.checkpoint_settings,
            self.signals,
            self._snapshot,
            folder,
            self.checkpoints,
            time_limit=self.settings.time_limit,
            strategy=self.strategy,
        )

    def _begin(self, resume: bool) -> None:
        strategy = self.strategy
        if resume:
            if self.checkpoints is not None:
                self.checkpoints.clean()
        else:
            seed_everything(stream(self.seed, strategy.rank))
            with isolated(SEED):
                self.task.prepare(self._all_batches())
            if self.average is not None:
                self.average.begin()  # A task may have set some of the weights.
        if self._processes_before != strategy.world and self.folder is not None:
            self.folder.announce(
                f"this run had {self._processes_before} processes and goes on with "
                f"{strategy.world}: its batches stay the same, dropout and noise do not"
            )
        if strategy.world > 1:
            found = self.dry_run()
            choice = strategy.prepare(
                self.task, differentiates=found.differentiates, reaches_all=found.reaches_all
            )
            if self.folder is not None:
                self.folder.announce(choice)
        if (said := self.compilation.begin(self.data, self.updater.autocast)) and self.folder:
            self.folder.announce(said)
        with self.compilation.left_out():
            self.callbacks.on_fit_start(self)
        forget_peak(self.device)
        if not resume:
            tensors = self.task.model.state_dict().values()
            self.saving.begin(sum(t.nbytes for t in tensors))

    def _stand_in(self) -> Any:
        """The first training batch, for a process that has nothing of a batch."""
        return next(iter(self.data.batches("train", 0)))

    def dry_run(self) -> Rehearsal:
        """Puts the first and the smallest training batch through the task, and evaluates one.

        Nothing is learned.

        Raises:
            ValueError: data, model and task do not fit together, there is no metric of the name
                that selects checkpoints, the optimizer needs an objective that is always the same
                and this is not, or the networks cannot be compiled.
        """
        autocast = self.updater.autocast
        with self.compilation.left_out():
            try:
                batches = self.plan.batches_per_epoch
                found = rehearse(self.task, self.data, batches, autocast, self.strategy)
            except ValueError as error:
                self.strategy.explain(error)
                raise
            if "val" in self.data.splits:
                self.selection.value(found.metrics)
            if self.updater.searches:
                require_same_objective(self.task, self.data, autocast)
            if self.settings.cuda_graphs:
                self._first_of_one_shape()
        self.compilation.begin(self.data, autocast)
        return found

    def _first_of_one_shape(self) -> Any:
        return require_static_step(
            self.task, self.data, self.plan, self.updater, self.device, self._make_runner
        )

    def _train(self) -> None:
        stepper: Stepper | CapturedStepper
        stepper = Stepper(self.task, self.updater, self.strategy, self.curve, self._stand_in)
        if self.settings.cuda_graphs:
            stepper = self.captured = CapturedStepper(
                self.state,
                self.curve,
                self.plan,
                self._first_of_one_shape(),
                runner=self._make_runner(self.device),
                device=self.device,
            )
        try:
            self._loop(stepper)
            self.saving.complete()
        except Interrupted:
            self.saving.save()
            self.saving.complete()
            raise
        finally:
            self.saving.settle()
            if self.captured is not None:
                self.captured.release()
                if self.folder is not None:
                    self.folder.log(str(self.captured))

    def _loop(self, stepper: Stepper | CapturedStepper) -> None:
        plan, position, saving, callbacks = self.plan, self.position, self.saving, self.callbacks
        training_mode(self.task.model)
        saving.start_clock()
        self.reporter.start_clock()
        self._turn_over()  # Before any step: a run that was killed during an evaluation repeats it.
        while position.step < plan.total_steps and not self.stopped:
            for window in self.curve.waiting_for(plan.windows(position)):
                is_logged = plan.is_logged(position.step + 1)
                updates = position.updates
                self.updater.set_rates(self.rates(updates), self.rates.of_groups(updates))
                try:
                    taken = stepper.step(window, measure=is_logged)
                except NonFiniteError as error:
                    raise plan.non_finite(str(error), position) from None
                if taken and self.average is not None:
                    self.average.update()
                position.updates += taken
                position.step += 1
                position.batch += len(window)
                if is_logged:
                    self.reporter.report_training()
                callbacks.on_step_end(self)
                if saving.is_due(position.step):
                    saving.housekeeping(position.step)
                    callbacks.on_heartbeat(self)
                if plan.is_evaluation_due(position):
                    break
            self._turn_over()

    def _turn_over(self) -> None:
        """Ends an epoch that is complete, and evaluates where that is due."""
        due = self.plan.is_evaluation_due(self.position)
        self.plan.end_epoch(self.position)
        if due:
            self._evaluate_and_save()
        self._share_stop()

    def _share_stop(self) -> None:
        """Has all processes stop where a callback of the main process has asked for it."""
        if self.strategy.world > 1:
            self.stopped, self._stopped_by = self.strategy.share((self.stopped, self._stopped_by))

    def _evaluate_and_save(self) -> None:
        self.saving.complete()  # The ranking is that of the files.
        self.reporter.check()
        keep = False
        if "val" in self.data.splits:
            with self.state.weights_to_use(), self.compilation.left_out():
                batches = self.plan.batches_per_epoch
                training = self.evaluation.training(batches) if self.settings.train_metrics else {}
                metrics = self._evaluate("val")
            if training:  # Not before: an evaluation that is interrupted is repeated as a whole.
                self.reporter.report({"split": "train", **training})
            value = self.selection.value(metrics)
            self.state.metrics = metrics
            self.rates.observe(value, self.mode)
            if self.checkpoints is not None and math.isfinite(value):
                keep = self.checkpoints.rank(value, self.step)
        self.position.evaluated_at = self.step
        every, number = self.checkpoint_settings.keep_every, self.plan.number(self.position)
        for_good = bool(every and number and number % every == 0)
        is_last = self.stopped or self.step >= self.plan.total_steps
        is_saved = keep or for_good or is_last or self.saving.is_cheap()
        if self.strategy.share(is_saved):  # All save together, and their clocks may differ.
            self.saving.save(keep=keep, for_good=for_good, background=not is_last)

    def evaluate(self, split: str) -> dict[str, float]:
        """The task's metrics over a split, of the averaged weights if there are any."""
        with self.state.weights_to_use():
            return self._evaluate(split)

    def _evaluate(self, split: str) -> dict[str, float]:
        """The task's metrics over a split, of the weights that the model holds."""

        def tell(metrics: dict[str, float]) -> None:
            self._shown = self._show_shards() if self.strategy.is_sharded else None
            self.reporter.report({"split": split, **metrics})
            self.callbacks.on_evaluation_end(self, split, metrics)

        with self.compilation.left_out():
            return self.evaluation.split(split, tell)

    def show(self) -> dict[str, Shown]:
        """What there is to look at after an evaluation, see `Task.show`."""
        return self.task.show() if self._shown is None else self._shown

    def _show_shards(self) -> dict[str, Shown]:
        """What there is to look at, for which every process has to ask: it gathers weights."""
        try:
            return self.strategy.own(self.task.show())
        except RuntimeError as error:
            if not self.strategy.needs_all(error):
                raise
        with self.strategy.evaluating(self.task):
            return self.strategy.own(self.task.show())

    def stop(self, reason: str) -> None:
        """Ends training after the present evaluation."""
        if not self.stopped:
            self.stopped, self._stopped_by = True, reason
            if self.folder is not None:
                self.folder.log(f"stopped early: {reason}")

    def _finish(self) -> dict[str, Any]:
        """Puts the selected weights into the model, and says what they reach."""
        found, step = {"val": self.state.metrics}, self.step
        best = self.selection.best(self.checkpoints, whole=not self.strategy.is_sharded)
        if best := self.strategy.share_state(best):
            with well_formed("best.pt"):
                found, step = {"val": best["metrics"]}, best["position"]["step"]
                self.state.use(best)
        elif self.average is not None:
            self.average.keep()
        if "test" in self.data.splits:
            found["test"] = self._evaluate("test")
        results = self.selection.results(
            found,
            self.task.model,
            self.position,
            selected_step=step,
            items=self.curve.items,
            ended_by=self.ended_by or "",
            memory=peak_memory(self.device),
        )
        if self.folder is not None:
            self.folder.write("results.json", results)
        return results

    # ------------------------------------------------------------------------------ the state

    def _snapshot(self) -> dict[str, Any]:
        """The state, after a look at whether it is worth saving."""
        self.reporter.check()
        self.reporter.tick()
        return self.state.state_dict(whole=False)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes what happens next, as plain Python and tensors."""
        return self.state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            CheckpointError: the state belongs to another model.
        """
        self.state.load_state_dict(state)
