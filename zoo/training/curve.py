"""The training curve: what gathers on the device between two of its lines."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

TAKEN = (
    *("step", "epoch", "split", "loss", "lr", "grad_norm", "zero_weights"),
    *("samples_per_second", "mfu", "data_wait", "memory_mib"),
)
"""Names in a line that a part of a loss must not have."""


class TrainingCurve:
    """Sums losses over the steps since the last line, weighted by their counts, with no sync.

    Args:
        networks: names of the networks, each of which has a loss.
        device: where the losses are.
        items_at_peak: what the device would get through in a second at its peak, if it is known.
    """

    def __init__(
        self, networks: list[str], device: torch.device, *, items_at_peak: float | None = None
    ) -> None:
        self._prefix = {n: "" if len(networks) == 1 else f"{n}_" for n in networks}
        self._device = device
        self._items_at_peak = items_at_peak
        # In float64: a window may have a million steps.
        self._sums: dict[str, Tensor | float] = dict.fromkeys(networks, 0.0)
        self._dtype = torch.float32 if device.type == "mps" else torch.float64  # It has no float64.
        self._reads_at_once = device.type == "cpu"  # Where nothing has to be waited for.
        self._counts: dict[str, Tensor | float] = dict.fromkeys(networks, 0)
        # Of the parts of the losses: sum and count.
        self._terms: dict[str, list[Tensor | float]] = {}
        self._began = time.perf_counter()
        self.waited = 0.0
        self.items = 0.0

    def waiting_for(self, batches: Iterator[list[Any]]) -> Iterator[list[Any]]:
        """Passes on what the loaders give, and notes the time that it takes."""
        clock = time.perf_counter
        while True:
            began = clock()
            window = next(batches, None)
            self.waited += clock() - began
            if window is None:
                return
            yield window

    def add(self, network: str, loss: Tensor, count: Tensor | int) -> None:
        """Takes in one update's mean loss over `count` terms."""
        self._sums[network] = self._value(loss) * count + self._sums[network]
        self._counts[network] = count + self._counts[network]

    def add_terms(self, network: str, terms: Mapping[str, Tensor], count: Tensor | int) -> None:
        """Takes in parts of a loss, each a mean over `count` terms like the loss.

        A part that is not there in every step is averaged over the steps in which it is.

        Raises:
            ValueError: a part is not a scalar tensor, or has the name of something else in a line.
        """
        for name, term in terms.items():
            key = self._prefix[network] + name
            if key not in self._terms:
                _check_term(name, term)
            kept = self._terms.setdefault(key, [0.0, 0.0])
            kept[0] = self._value(term) * count + kept[0]
            kept[1] = count + kept[1]

    def _value(self, scalar: Tensor) -> Tensor | float:
        """A number where nothing has to be waited for, else a tensor that is precise enough."""
        return scalar.item() if self._reads_at_once else scalar.detach().to(self._dtype)

    def read(
        self,
        rates: Mapping[str, Mapping[str, float]],
        norms: dict[str, Tensor],
        layers: dict[str, Tensor],
        zeros: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        """The line of the curve, which the device is made to wait for; the sums begin anew.

        Args:
            rates: learning rates of each network by group of parameters, `""` being the others.
            norms: global gradient norm of each network.
            layers: gradient norm of each parameter by name.
            zeros: share of the weights that are zero, of networks where that is aimed at.

        Returns:
            Name to value: mean losses and parts of losses over the window, the rates and norms of
            its last step, items (what the loss is a mean over) per second, what they are of those
            at the device's peak (`mfu`) if that is known, share of the time spent waiting for data,
            and peak memory in MiB.
        """
        row: dict[str, Any] = {}
        counts = {name: float(count) for name, count in self._counts.items()}
        for name, prefix in self._prefix.items():
            if counts[name]:  # Else there was no loss: fp16 skipped every step.
                row[f"{prefix}loss"] = float(self._sums[name]) / counts[name]
        row |= {
            name: float(total) / number
            for name, (total, count) in self._terms.items()
            if (number := float(count))
        }
        for name, prefix in self._prefix.items():
            for group, rate in rates[name].items():
                row[f"{prefix}lr/{group}" if group else f"{prefix}lr"] = rate
            if name in norms:
                row[f"{prefix}grad_norm"] = float(norms[name])
            if zeros and name in zeros:
                row[f"{prefix}zero_weights"] = float(zeros[name])
        row |= {f"grad_norm/{name}": float(norm) for name, norm in layers.items()}
        items, seconds = max(counts.values()), max(time.perf_counter() - self._began, 1e-9)
        row["samples_per_second"] = items / seconds
        if self._items_at_peak is not None:
            row["mfu"] = items / seconds / self._items_at_peak
        row["data_wait"] = self.waited / seconds
        row["memory_mib"] = peak_memory(self._device)
        self.items += items
        self._sums = dict.fromkeys(self._sums, 0.0)
        self._counts = dict.fromkeys(self._counts, 0)
        self._terms.clear()
        self.restart()
        return row

    def restart(self) -> None:
        """Starts the clock of the next line."""
        self._began, self.waited = time.perf_counter(), 0.0

    def state_dict(self) -> dict[str, Any]:
        """The sums since the last line."""
        return {
            "sums": {name: float(total) for name, total in self._sums.items()},
            "counts": {name: float(count) for name, count in self._counts.items()},
            "terms": {n: [float(value) for value in kept] for n, kept in self._terms.items()},
            "items": self.items,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self._sums = {name: float(state["sums"][name]) for name in self._sums}
        self._counts, self.items = dict(state["counts"]), state["items"]
        self._terms = {name: list(kept) for name, kept in state.get("terms", {}).items()}


def _check_term(name: str, value: Any) -> None:
    if name in TAKEN:
        raise ValueError(f"terms must not have the name {name!r}, which the curve itself uses")
    if not isinstance(value, Tensor) or value.ndim > 0:
        raise ValueError(f"terms must be scalar tensors, but {name!r} is {value!r}")


def forget_peak(device: torch.device) -> None:
    """Has the peak of a GPU begin anew; that of a process cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> float:
    """Peak memory in MiB: of the device on a GPU, of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Not on Windows.
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
