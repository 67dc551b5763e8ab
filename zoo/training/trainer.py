"""The training loop: when to step, to log, to evaluate and to save.

It knows no task. A task yields objectives (Goodfellow's discriminator and generator, or the one
loss of an ordinary task), and the trainer takes the update of each before it asks for the next.
Read `fit`, `_loop`, `_step` and `_backward` in this order. How an update is taken is in
`update.py`, what a checkpoint holds in `state.py`, when it is written in `saving.py`, and which
weights a run ends with in `selection.py`.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo.tasks.task import Objective, Task
from zoo.training.averaging import WeightAverage
from zoo.training.callback import Callback
from zoo.training.checkpoint import CheckpointFolder
from zoo.training.curve import TrainingCurve
from zoo.training.distributed import OneProcess, Strategy
from zoo.training.evaluation import SEED, ignore, measure
from zoo.training.freezing import training_mode
from zoo.training.interruption import Interrupted, Signals
from zoo.training.optimizers import by_network
from zoo.training.overfit import FirstBatch
from zoo.training.precision import place, resolve_device, resolve_precision
from zoo.training.rehearsal import rehearse, require_turn
from zoo.training.reproducibility import backends, isolated, seed_everything
from zoo.training.run_folder import RunFolder
from zoo.training.saving import Saving
from zoo.training.schedules import Constant, Schedule
from zoo.training.selection import Selection, task_state, usable_weights
from zoo.training.settings import CheckpointSettings, TrainerSettings
from zoo.training.state import Position, RunState
from zoo.training.update import NonFiniteError, Updater, non_finite


class Joint(NamedTuple):
    """The objectives of all batches of a step for one network, as if of one large batch.

    Attributes:
        loss: sum over ``count`` terms; of a single batch the mean.
        count: terms of all batches.
        network: whose.
        terms: parts of the loss by name: likewise, with the counts of the batches that have them.
    """

    loss: Tensor
    count: Tensor | int  # type: ignore[assignment]  # hides tuple.count
    network: str
    terms: dict[str, tuple[Any, Any]]


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

    Raises:
        ValueError: the optimizers are not those of the task's networks, the data have no training
            split, the device is not there, or the strategy cannot do what the settings ask for.
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
    ) -> None:
        self.settings = settings or TrainerSettings()
        if "train" not in data.splits:
            raise ValueError("the data have no training split")
        self.data = FirstBatch(data) if self.settings.overfit else data
        self.task, self.seed = task, seed
        self.strategy = strategy or OneProcess()
        self.networks: dict[str, nn.Module] = task.networks()
        self.optimizers = by_network(optimizers, self.networks)
        self.schedule = schedule or Constant()
        self.checkpoint_settings = checkpoints or CheckpointSettings()
        self.selection = Selection(task, self.checkpoint_settings)
        self.folder: RunFolder | None = None
        self.checkpoints: CheckpointFolder | None = None
        self.callbacks: list[Callback] = []
        self.signals = Signals()
        self.saving = Saving(self.checkpoint_settings, self.signals, self.state_dict)
        self._clock: float | None = None
        self.stopped = False
        self._prepare_networks(layer_gradients)
        self.state = RunState(
            task=task,
            optimizers=self.optimizers,
            schedule=self.schedule,
            average=self.average,
            updater=self.updater,
            curve=self.curve,
            strategy=self.strategy,
            config=config,
        )
        self._plan()

    @property
    def position(self) -> Position:
        """How far the run has come."""
        return self.state.position

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return self.state.position.step

    @property
    def monitor(self) -> str:
        """The validation metric that selects checkpoints."""
        return self.selection.monitor

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether less or more of it is better."""
        return self.selection.mode

    def _prepare_networks(self, layer_gradients: bool) -> None:
        """Places, formats and compiles the networks, and makes what a step needs."""
        settings, model = self.settings, self.task.model
        self.device = resolve_device(settings.device)
        dtype = resolve_precision(settings.precision, self.device)
        decay = settings.ema_decay
        if self.strategy.is_sharded and (dtype is torch.float16 or decay is not None):
            raise ValueError(
                "precision=fp16 and ema_decay do not work with shards; use precision=bf16, no "
                "ema_decay, or replicas"
            )
        place(model, self.device, False if self.strategy.is_sharded else settings.channels_last)
        self.task.to(self.device)
        if settings.compile:
            for network in self.networks.values():
                network.compile()  # In place, so that the keys of its state stay what they are.
        self.average = WeightAverage(model, decay) if decay is not None else None
        self.updater = Updater(
            model,
            self.optimizers,
            device=self.device,
            dtype=dtype,
            clip_norm=settings.clip_norm,
            clip_value=settings.clip_value,
            layer_gradients=layer_gradients,
            strategy=self.strategy,
        )
        self.curve = TrainingCurve(list(self.networks), self.device)

    def _plan(self) -> None:
        settings = self.settings
        batches = self.data.num_batches("train")
        if settings.limit_train_batches is not None:
            batches = min(batches, settings.limit_train_batches)
        self.batches_per_epoch = batches
        self.steps_per_epoch = math.ceil(batches / settings.accumulate)
        limits = [settings.steps, settings.epochs and settings.epochs * self.steps_per_epoch]
        self.total_steps = min(limit for limit in limits if limit is not None)
        self.schedule.bind(total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch)

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
            "seconds": s, "samples_per_second": r}`.

        Raises:
            Interrupted: a signal asked for the end; the state has been saved.
            NonFiniteError: a loss or gradient was NaN or infinite.
            CheckpointError: a checkpoint could not be written or read.
        """
        settings, results = self.settings, None
        with ExitStack() as stack:
            stack.enter_context(
                backends(deterministic=settings.deterministic, threads=settings.threads)
            )
            stack.enter_context(self.signals)
            if folder is not None:
                stack.enter_context(folder.lock())
                stack.enter_context(folder.reporting())
            self._open(folder, callbacks)
            try:
                self._begin(resume)
                self._train()
                results = self._finish()
            finally:
                self._close(results)
        return results

    def _open(self, folder: RunFolder | None, callbacks: Sequence[Callback]) -> None:
        self.folder, self.callbacks = folder, list(callbacks)
        self.state.callbacks = self.callbacks
        if folder is not None:
            self.checkpoints = CheckpointFolder(
                folder.path / "checkpoints",
                mode=self.mode,
                top_k=self.checkpoint_settings.top_k,
            )
            self.saving = Saving(
                self.checkpoint_settings, self.signals, self._snapshot, folder, self.checkpoints
            )
        self._on_step_end = [
            c for c in self.callbacks if type(c).on_step_end is not Callback.on_step_end
        ]

    def _close(self, results: dict[str, Any] | None) -> None:
        failures = []
        self.task.end_turn()  # One that an error has cut short.
        for callback in self.callbacks:
            try:
                callback.on_fit_end(self, results)
            except Exception as error:
                failures.append(error)
        # Where there are no results, the failure that brought us here is what to report.
        if failures and results is not None:
            raise failures[0]

    def _begin(self, resume: bool) -> None:
        seed_everything(self.seed)
        if resume:
            if self.checkpoints is None:
                raise ValueError("resume needs a folder")
            self.checkpoints.clean()
            self.load_state_dict(self.checkpoints.newest())
        else:
            with isolated(SEED):
                self.task.prepare(self.data.batches("train", 0))
        if self.strategy.world > 1:
            differentiates = self.dry_run()
            choice = self.strategy.prepare(self.task, differentiates=differentiates)
            if self.folder is not None:
                self.folder.log(choice)
        for callback in self.callbacks:
            with isolated(SEED):
                callback.on_fit_start(self)
        if not resume:
            tensors = self.task.model.state_dict().values()
            self.saving.begin(sum(t.nbytes for t in tensors))

    def dry_run(self) -> bool:
        """Puts the first and the smallest training batch through the task; learns nothing.

        Returns:
            Whether the task itself differentiates inside its objectives.

        Raises:
            ValueError: data, model and task do not fit together, or there is no metric of the name
                that selects checkpoints.
        """
        differentiates, metrics = rehearse(
            self.task, self.data, self.batches_per_epoch, self.updater.autocast
        )
        if "val" in self.data.splits:
            self.selection.value(metrics)
        return differentiates

    def _train(self) -> None:
        try:
            self._loop()
        except Interrupted:
            self.saving.save()
            raise

    def _loop(self) -> None:
        settings, position = self.settings, self.position
        training_mode(self.task.model)
        self.saving.start_clock()
        self._clock = time.perf_counter() - position.seconds
        self.curve.restart()
        self._turn_over()  # Before any step: a run that was killed during an evaluation repeats it.
        while position.step < self.total_steps and not self.stopped:
            for window in self._windows():
                next_step = position.step + 1
                is_logged = next_step % settings.log_every == 0 or next_step == self.total_steps
                self._step(window, measure=is_logged)
                position.step = next_step
                position.batch += len(window)
                if is_logged:
                    self._log_training()
                for callback in self._on_step_end:
                    callback.on_step_end(self)
                if self.saving.is_due(next_step):
                    self.saving.housekeeping(next_step)
                if self._is_evaluation_due():
                    break
            self._turn_over()

    def _turn_over(self) -> None:
        """Ends an epoch that is complete, and evaluates where that is due."""
        position = self.position
        due = self._is_evaluation_due()
        if position.batch >= self.batches_per_epoch:
            position.epoch, position.batch = position.epoch + 1, 0
        if due:
            self._evaluate_and_save()

    def _is_evaluation_due(self) -> bool:
        position, every = self.position, self.settings.evaluate_every
        step = position.step
        if step == 0 or step == position.evaluated_at:
            return False
        # Batch 0: the state was saved during the evaluation at the end of an epoch.
        ends = position.batch >= self.batches_per_epoch or position.batch == 0
        return (step % every == 0 if every else ends) or step >= self.total_steps

    def _windows(self) -> Iterator[list[Any]]:
        """The rest of the epoch in groups of `accumulate` batches; the last may be smaller."""
        position = self.position
        left = self.batches_per_epoch - position.batch
        batches = islice(self.data.batches("train", position.epoch, position.batch), left)
        size, clock = self.settings.accumulate, time.perf_counter
        while True:
            began = clock()
            window = list(islice(batches, size))
            self.curve.waited += clock() - began
            if not window:
                return
            yield window

    def _step(self, window: list[Any], *, measure: bool) -> None:
        """One optimizer step of every network on a window of batches.

        The objectives of the batches advance side by side, so that k accumulated batches equal one
        large batch also where one network's loss is computed after another's update.
        """
        updater, strategy = self.updater, self.strategy
        updater.set_rates(self.schedule(self.position.updates))
        runs = [self.task.objectives(batch) for batch in window]
        # Unless there are several batches, the mean over the count is the loss itself.
        weigh, taken, is_first = len(window) > 1 or strategy.world > 1, True, True
        while joint := self._backward(runs, weigh=weigh, is_first=is_first):
            loss, count, network, terms = joint
            if strategy.world > 1:
                flat = [value for pair in terms.values() for value in pair]
                loss, count, *flat = strategy.total(loss, count, *flat)
                terms = dict(zip(terms, zip(flat[::2], flat[1::2], strict=True), strict=True))
            try:
                stepped = updater.update(network, loss, count if weigh else None, measure=measure)
            except NonFiniteError as error:
                raise self._non_finite(str(error)) from None
            finally:
                self.task.end_turn()
            if stepped:
                self.curve.add(network, loss, count)
                for name, (total, number) in terms.items():
                    mean = total / number if weigh else total
                    self.curve.add_terms(network, {name: mean}, number)
            taken, is_first = taken and stepped, False
        updater.end_step()
        self.position.updates += taken
        if taken and self.average is not None:
            self.average.update()

    def _backward(
        self, runs: list[Iterator[Objective]], *, weigh: bool, is_first: bool
    ) -> Joint | None:
        """Asks every batch for its next objective, and gathers their gradients and themselves."""
        updater, ask = self.updater, self.strategy.ask
        joint: Joint | None = None
        parts: dict[str, tuple[Any, Any]] = {}
        for run in runs:
            with updater.autocast:
                objective = ask(run, is_first=is_first, is_last=run is runs[-1])
            if objective is None:
                return None
            loss, count, network, terms = objective
            require_turn(self.task, self.networks, network)
            if weigh:
                loss = loss * count
            for name, term in (terms or {}).items():
                total, number = parts.get(name, (0.0, 0))
                parts[name] = (total + (term * count if weigh else term), number + count)
            updater.backward(loss, network)
            loss = loss.detach()
            if joint is not None:
                loss, count = joint.loss + loss, count + joint.count
            joint = Joint(loss, count, network, parts)
        return joint

    def _non_finite(self, what: str, behind: int = 0) -> NonFiniteError:
        """The error that names the step, so many steps ago, and its samples."""
        size, position = self.settings.accumulate, self.position
        window = position.epoch * self.steps_per_epoch + math.ceil(position.batch / size) - behind
        epoch, window = divmod(window, self.steps_per_epoch)
        batches = range(window * size, min(window * size + size, self.batches_per_epoch))
        indices = self.data.loaders["train"].indices
        samples = [number for batch in batches for number in indices(epoch, batch)]
        return non_finite(what, position.step + 1 - behind, epoch, batches[0], samples)

    # ---------------------------------------------------------------------------- evaluation

    def evaluate(self, split: str) -> dict[str, float]:
        """The task's metrics over a split, of the averaged weights if there are any."""
        with self.average.applied() if self.average else nullcontext():
            return self._evaluate(split)

    def _evaluate(self, split: str) -> dict[str, float]:
        """The task's metrics over a split, of the weights that the model holds."""

        def tell(metrics: dict[str, float]) -> None:
            self._log({"split": split, **metrics})
            for callback in self.callbacks:
                callback.on_evaluation_end(self, split, metrics)

        return self._judge(split, self.settings.limit_eval_batches, tell)

    def _judge(
        self, split: str, limit: int | None, then: Callable[[dict[str, float]], None] = ignore
    ) -> dict[str, float]:
        return measure(
            self.task,
            islice(self.data.batches(split, 0), limit),
            autocast=self.updater.autocast,
            between=self.signals.check,
            then=then,
        )

    def _evaluate_and_save(self) -> None:
        self._check_flag()
        keep = False
        if "val" in self.data.splits:
            training = self._measure_training() if self.settings.train_metrics else {}
            metrics = self.evaluate("val")
            if training:  # Not before: an evaluation that is interrupted is repeated as a whole.
                self._log({"split": "train", **training})
            value = self.selection.value(metrics)
            self.state.metrics = metrics
            self.schedule.observe(value, self.mode)
            if self.checkpoints is not None and math.isfinite(value):
                keep = self.checkpoints.rank(value, self.step)
        self.position.evaluated_at = self.step
        self.saving.save(keep=keep)

    def _measure_training(self) -> dict[str, float]:
        """Metrics on as many training batches as validation has, for the same charts."""
        limits = [self.data.num_batches("val"), self.batches_per_epoch]
        if self.settings.limit_eval_batches is not None:
            limits.append(self.settings.limit_eval_batches)
        with self.average.applied() if self.average else nullcontext():
            metrics = self._judge("train", min(limits))
        # The loss of training has a curve already.
        return {name: v for name, v in metrics.items() if not name.endswith("loss")}

    def stop(self, reason: str) -> None:
        """Ends training after the present evaluation."""
        if not self.stopped and self.folder is not None:
            self.folder.log(f"stopped early: {reason}")
        self.stopped = True

    def _finish(self) -> dict[str, Any]:
        """Puts the selected weights into the model, and says what they reach."""
        found, step = {"val": self.state.metrics}, self.step
        if best := self.selection.best(self.checkpoints):
            found, step = {"val": best["metrics"]}, best["position"]["step"]
            self.strategy.load_state(self.task.model, usable_weights(best))
            self.task.load_state_dict(task_state(best))
        elif self.average is not None:
            self.average.keep()
        if "test" in self.data.splits:
            found["test"] = self._evaluate("test")
        results = self.selection.results(
            found, self.task.model, self.position, selected_step=step, items=self.curve.items
        )
        if self.folder is not None:
            self.folder.write("results.json", results)
        return results

    # ------------------------------------------------------------------------ curves and state

    def _log_training(self) -> None:
        """Hands the line of the training curve that has gathered on the device to the callbacks."""
        self._check_flag()
        self._tick()
        rates = {name: o.param_groups[0]["lr"] for name, o in self.optimizers.items()}
        updater = self.updater
        self._log({"split": "train", **self.curve.read(rates, updater.norms, updater.layers)})

    def _tick(self) -> None:
        """Brings the seconds of training up to now."""
        if self._clock is not None:
            self.position.seconds = time.perf_counter() - self._clock

    def _log(self, row: dict[str, Any]) -> None:
        epoch = self.position.epoch + self.position.batch / self.batches_per_epoch
        row = {"step": self.step, "epoch": round(epoch, 4), **row}
        for callback in self.callbacks:
            callback.on_log(self, row)

    def _check_flag(self) -> None:
        """On a GPU: reads the flag that masks updates once something was not finite."""
        skipped = self.updater.check()
        if skipped is not None:
            raise self._non_finite("a loss or gradient", behind=skipped)

    def _snapshot(self) -> dict[str, Any]:
        """The state, after a look at whether it is worth saving."""
        self._check_flag()
        self._tick()
        return self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes what happens next, as plain Python and tensors."""
        return self.state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            CheckpointError: the state belongs to another model.
        """
        self.state.load_state_dict(state)
