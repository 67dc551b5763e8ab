"""Measures what the zoo costs, as ratios of two sides that run in turns in one process.

    python scripts/benchmark.py trainer loader startup --record docs/benchmarks/cpu.json

A ratio is that of the minima over the blocks and the median of the ratios block by block: a
machine's speed drifts by tens of per cent within minutes, and only neighbours in time can be
compared. Before anything is timed, both sides must give the same numbers.

trainer  an MLP 784-256-10 at batch 64: the trainer with callbacks, schedule and TensorBoard against
         the best loop by hand (fused optimizer, tensors in memory, no logging), and against itself
         without logging
loader   normalised, randomly cropped batches of 128 pictures 32x32x3 in memory against torchvision
         transforms in a DataLoader with the best of 0, 1 and 2 workers
startup  `train.py --help` and refused command lines against `python -c "import torch"`
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from zoo.data.augmentation import RandomCrop  # noqa: E402
from zoo.data.loaders import TensorLoader  # noqa: E402
from zoo.data.picture import Normalize  # noqa: E402
from zoo.models.mlp import MLP  # noqa: E402
from zoo.tasks.classification import Classification  # noqa: E402
from zoo.training.callbacks import Callback  # noqa: E402
from zoo.training.console import Console  # noqa: E402
from zoo.training.optimizers import make_optimizer  # noqa: E402
from zoo.training.run_folder import RunFolder, environment  # noqa: E402
from zoo.training.schedules import Cosine  # noqa: E402
from zoo.training.settings import LoggerSettings, TrainerSettings  # noqa: E402
from zoo.training.tensorboard import TensorBoard  # noqa: E402
from zoo.training.trainer import Trainer  # noqa: E402


def interleave(sides: dict[str, Callable[[], float]], blocks: int) -> dict[str, list[float]]:
    """Runs every side once a block, in turns; returns the seconds that each reported."""
    for side in sides.values():
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(blocks):
        for name, side in sides.items():
            times[name].append(side())
    return times


def ratio(times: dict[str, list[float]], ours: str, theirs: str, bar: float) -> dict[str, Any]:
    """The two ratios of two sides, and the spread of the second."""
    by_block = sorted(a / b for a, b in zip(times[ours], times[theirs], strict=True))
    result: dict[str, Any] = {
        "ours": ours,
        "theirs": theirs,
        "of_minima": round(min(times[ours]) / min(times[theirs]), 4),
        "median_of_blocks": round(statistics.median(by_block), 4),
        "spread_of_blocks": [round(by_block[0], 4), round(by_block[-1], 4)],
        "ours_ms": round(1e3 * min(times[ours]), 4),
        "theirs_ms": round(1e3 * min(times[theirs]), 4),
        "bar": bar,
    }
    worse = max(result["of_minima"], result["median_of_blocks"])
    met = "met" if worse <= bar else "MISSED"
    print(
        f"{ours} / {theirs}: {result['of_minima']:.3f} (minima), "
        f"{result['median_of_blocks']:.3f} (median of {len(by_block)} blocks, "
        f"{by_block[0]:.3f} to {by_block[-1]:.3f}); bar {bar}: {met}",
        flush=True,
    )
    return result


# ------------------------------------------------------------------------------------- trainer

# As many samples as MNIST, and two epochs a block: a checkpoint is written between them.
BATCH, STEPS, SAMPLES = 64, 2 * 938, 60_000


class _Data:
    """Random vectors in memory, for training alone."""

    splits = ("train",)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(SAMPLES, 784, generator=generator)
        self.targets = torch.randint(10, (SAMPLES,), generator=generator)
        loader = TensorLoader((self.inputs, self.targets), batch_size=BATCH, shuffle=True)
        self.loaders = {"train": loader}

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Any]:
        return self.loaders[split].batches(epoch, start)

    def num_batches(self, split: str) -> int:
        return len(self.loaders[split])


def _network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = MLP(784, 10, hidden_sizes=(256,))
    # One parameter group on both sides.
    return model, make_optimizer(torch.optim.AdamW, model, lr=1e-3, decay_norms_and_biases=True)


def _by_hand(data: _Data, steps: int, schedule: Cosine | None = None) -> tuple[float, nn.Module]:
    """The best loop by hand; with a schedule for the comparison of numbers only."""
    model, optimizer = _network()
    model.train()
    epochs = steps * BATCH // SAMPLES + 1
    orders = [o for e in range(epochs) for o in data.loaders["train"]._sampler.chunks(e)]
    inputs, targets = data.inputs, data.targets
    began = time.perf_counter()
    for step, order in enumerate(orders[:steps]):
        if schedule is not None:
            optimizer.param_groups[0]["lr"] = 1e-3 * schedule(step)
        loss = F.cross_entropy(model(inputs.index_select(0, order)), targets.index_select(0, order))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - began, model


def _by_trainer(data: _Data, steps: int, *, logging: bool) -> tuple[float, nn.Module]:
    model, optimizer = _network()
    trainer = Trainer(
        Classification(model, num_classes=10),
        data,
        optimizer,
        schedule=Cosine(),
        settings=TrainerSettings(
            epochs=None, steps=steps, device="cpu", log_every=50 if logging else 10**9
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        callbacks: list[Callback] = []
        if logging:
            settings = LoggerSettings(console="lines", graph=False)
            callbacks = [Console(settings), TensorBoard(settings, Path(folder))]
        with contextlib.redirect_stdout(None):
            trainer.fit(folder=RunFolder.create(folder, "run"), callbacks=callbacks)
    return trainer.seconds, model


def trainer(blocks: int) -> list[dict[str, Any]]:
    """The trainer against the best loop by hand."""
    data = _Data()
    schedule = Cosine()
    schedule.bind(total_steps=200, steps_per_epoch=len(data.loaders["train"]))
    expected, found = _by_hand(data, 200, schedule)[1], _by_trainer(data, 200, logging=True)[1]
    for (name, a), b in zip(expected.named_parameters(), found.parameters(), strict=True):
        if not torch.equal(a, b):
            raise SystemExit(f"trainer and loop by hand disagree about {name}")
    print("trainer and loop by hand: weights equal bit for bit after 200 steps")
    times = interleave(
        {
            "loop by hand": lambda: _by_hand(data, STEPS)[0] / STEPS,
            "trainer": lambda: _by_trainer(data, STEPS, logging=True)[0] / STEPS,
            "trainer without logging": lambda: _by_trainer(data, STEPS, logging=False)[0] / STEPS,
        },
        blocks,
    )
    return [
        ratio(times, "trainer", "loop by hand", 1.06),
        ratio(times, "trainer", "trainer without logging", 1.05),
    ]


# -------------------------------------------------------------------------------------- loader

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class _Pictures(torch.utils.data.Dataset[Any]):
    """Pictures as PIL would decode them, through torchvision's transforms."""

    def __init__(self, pictures: torch.Tensor, transform: Any) -> None:
        from PIL import Image

        self.pictures = [Image.fromarray(p.numpy()) for p in pictures]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> torch.Tensor:
        found: torch.Tensor = self.transform(self.pictures[index])
        return found


def loader(blocks: int) -> list[dict[str, Any]]:
    """In-memory batches against a DataLoader of torchvision transforms."""
    from torchvision import transforms

    generator = torch.Generator().manual_seed(0)
    count = 128 * 40
    pictures = torch.randint(256, (count, 32, 32, 3), generator=generator, dtype=torch.uint8)
    normalize = Normalize(MEAN, STD)
    images = pictures.permute(0, 3, 1, 2)  # (samples, channels, height, width)

    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    expected = torch.stack([_Pictures(pictures[:64], plain)[i] for i in range(64)])
    if not torch.allclose(normalize(images[:64]), expected, atol=1e-5):
        raise SystemExit("the two normalisations disagree")
    print("normalised pictures agree to 1e-5")

    ours = TensorLoader(
        (images,), batch_size=128, shuffle=True, augment=(RandomCrop(4),), transform=normalize
    )

    def run_ours() -> float:
        began = time.perf_counter()
        batches = sum(1 for _ in ours.batches(0))
        return (time.perf_counter() - began) / batches

    crop = transforms.Compose([transforms.RandomCrop(32, padding=4), *plain.transforms])
    dataset = _Pictures(pictures, crop)

    def theirs(workers: int) -> Callable[[], float]:
        batches = torch.utils.data.DataLoader(
            dataset, 128, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )

        def run() -> float:
            began = time.perf_counter()
            number = sum(1 for _ in batches)
            return (time.perf_counter() - began) / number

        return run

    sides: dict[str, Callable[[], float]] = {"in memory": run_ours}
    sides |= {f"DataLoader, {n} workers": theirs(n) for n in (0, 1, 2)}
    times = interleave(sides, blocks)
    best = min((n for n in times if n != "in memory"), key=lambda n: min(times[n]))
    return [ratio(times, "in memory", best, 0.12)]


# ------------------------------------------------------------------------------------- startup

STARTUPS = {
    "--help": (["--help"], 0, 0.5),
    "unknown group option": (["model=lenet6"], 2, 0.5),
    "unknown setting": (["trainer.epoch=3"], 2, 0.5),
    "setting out of range": (["trainer.epochs=0"], 2, 0.5),
    "unknown argument of a component": (["model.num_clases=3"], 2, 1.5),
    "argument of a wrong type": (["optimizer.lr=fast"], 2, 1.5),
}


def startup(blocks: int) -> list[dict[str, Any]]:
    """Whole processes: help and refusals against importing torch."""

    def process(words: list[str], code: int) -> Callable[[], float]:
        def run() -> float:
            began = time.perf_counter()
            done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True)
            seconds = time.perf_counter() - began
            if done.returncode != code:
                raise SystemExit(f"{words} ended with {done.returncode}: {done.stderr.decode()}")
            return seconds

        return run

    sides = {"import torch": process(["-c", "import torch"], 0)}
    sides |= {n: process(["train.py", *words], code) for n, (words, code, _) in STARTUPS.items()}
    times = interleave(sides, blocks)
    return [ratio(times, name, "import torch", bar) for name, (_, _, bar) in STARTUPS.items()]


def main() -> None:
    """Runs the benchmarks named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    available = {"trainer": trainer, "loader": loader, "startup": startup}
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(available)} (all)")
    parser.add_argument("--blocks", type=int, default=11, help="blocks of each side (11)")
    parser.add_argument("--record", type=Path, help="JSON file to write the figures to")
    arguments = parser.parse_args()
    names = arguments.names or list(available)
    if unknown := [name for name in names if name not in available]:
        parser.error(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(available)}")
    results = {name: available[name](arguments.blocks) for name in names}
    if arguments.record:
        record = {
            "command": f"python scripts/benchmark.py {' '.join(names)} --blocks {arguments.blocks}",
            "environment": environment("cpu"),
            "results": results,
        }
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
