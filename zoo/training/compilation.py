"""Networks through `torch.compile`: what is compiled, when, and what the compiler left out."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from zoo.tasks.task import Task
from zoo.training.blocks import are_alike, lists_of_blocks
from zoo.training.freezing import training_mode
from zoo.training.rehearsal import untouched
from zoo.training.reproducibility import SEED, isolated
from zoo.training.shortage import shortage

_MOST_BREAKS = 3
"""Kinds of graph breaks that are named."""


class Compilation:
    """Compiles the networks of a task in place, so that the keys of their states stay as they are.

    The steps of training are compiled. Evaluations and samples run as they are written: in them
    shapes change from call to call, and `evaluate.py` finds the same metrics to the last bit.

    Where most of a network is blocks that are alike, each block is compiled by itself, which takes
    as long as for one of them, and the little around them is left as it is.

    Args:
        task: whose networks.
        mode: of `torch.compile`; `off`: nothing is compiled, and all of this does nothing.
    """

    def __init__(self, task: Task, mode: str) -> None:
        self._task, self._mode = task, mode
        self._report: str | None = None

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Within, networks run as they are written."""
        if self._mode == "off":
            yield
        else:
            with torch.compiler.set_stance("force_eager"):
                yield

    def begin(self, data: Any, autocast: Any) -> str:
        """Compiles, at the first call, with a training batch whose gradient leaves no trace.

        Args:
            data: where the batch comes from.
            autocast: context of the forward passes.

        Returns:
            What was compiled and which functions are left out, in a line; empty where it is off.

        Raises:
            ValueError: the compiler does not bear the task.
        """
        if self._mode == "off":
            return ""
        if self._report is None:
            self._report = self._compile(next(iter(data.batches("train", 0))), autocast)
        return self._report

    def _compile(self, batch: Any, autocast: Any) -> str:
        from torch._dynamo.utils import counters

        began = time.perf_counter()
        torch._dynamo.reset()  # The limit of recompilations counts those of earlier runs too.
        counters.clear()
        parts = [part for n in self._task.networks().values() for part in compiled_parts(n)]
        for part in parts:
            part.compile(**({} if self._mode == "default" else {"mode": self._mode}))
        try:
            self._try(batch, autocast)
        except Exception as error:
            if shortage(error):
                raise
            raise ValueError(
                f"trainer.compile={self._mode}: torch cannot compile "
                f"{type(self._task.model).__name__} here ({_first_line(error)}); use "
                "trainer.compile=off"
            ) from error
        graphs, seconds = counters["stats"]["unique_graphs"], time.perf_counter() - began
        names = ", ".join(sorted({type(part).__name__ for part in parts}))
        found = f"{graphs} graph{'s' * (graphs != 1)} of {names} in {seconds:.0f} s"
        return f"trainer.compile={self._mode}: {found}{_breaks(counters)}"

    def _try(self, batch: Any, autocast: Any) -> None:
        task = self._task
        state = task.state_dict()
        try:
            with isolated(SEED), untouched(task.model):
                training_mode(task.model)
                with autocast:
                    for objective in task.every_objective(batch):
                        objective.loss.backward()
                        task.end_turn()
        finally:
            task.end_turn()
            task.load_state_dict(state)
            for parameter in task.model.parameters():
                parameter.grad = None


def compiled_parts(network: nn.Module) -> list[nn.Module]:
    """What of a network is compiled: its blocks, if most of it is blocks that are alike, or all."""
    lists = [blocks for blocks in lists_of_blocks(network) if are_alike(blocks)]
    parts = list({id(block): block for blocks in lists for block in blocks}.values())
    inside = sum(len(list(part.parameters())) for part in parts)
    return parts if 2 * inside > len(list(network.parameters())) else [network]


def _breaks(counters: Mapping[str, Mapping[str, int]]) -> str:
    """What the compiler has left to Python, in words."""
    # The first are breaks within a function, the second also functions that are left out.
    reasons = [*counters["graph_break"], *counters["unimplemented"]]
    kinds = list(dict.fromkeys(map(_first_line, reasons)))
    named, others = kinds[:_MOST_BREAKS], len(kinds[_MOST_BREAKS:])
    if not named:
        return ""
    return f"; graph breaks: {', '.join(named)}" + (f" and {others} others" if others else "")


def _first_line(said: object) -> str:
    return str(said).strip().partition("\n")[0][:200]
