"""Measures what the zoo costs, as ratios of two sides that run in turns in one process.

    python scripts/benchmark.py trainer loader --record docs/benchmarks/cpu.json

A ratio is that of the minima over the blocks and the median of the ratios block by block: a
machine's speed drifts by tens of per cent within minutes, and only neighbours in time can be
compared. Before anything is timed, both sides must give the same numbers.

trainer  an MLP 784-256-10 at batch 64: the trainer with callbacks, schedule and TensorBoard against
         the best loop by hand (fused optimizer, tensors in memory, no logging), and against itself
         without logging
lightning, first_step  the trainer against Lightning with loader and logging, and from the start of
         a process to its first step; skipped where Lightning (extra `benchmark`) is not installed
optimizer  clipping, AdamW and clearing the gradients of ResNet-110 against torch's defaults
saving, resuming  checkpoints of 140 MB, flushed and verified, against torch.save with fsync, and
         against torch.load with load_state_dict
layout   a step of ResNet-20 as the trainer lays it out against one in NCHW with torch's defaults
loader   normalised, randomly cropped batches of 128 images 32x32x3 in memory against torchvision
         transforms in a DataLoader with the best of 0, 1 and 2 workers
images cropped, mirrored, normalised batches in memory against a training step of ResNet-20
models   networks against torchvision's with the same weights: forward and backward, and ours in the
         trainer against a loop by hand with torchvision's; `compiled` does the same compiled
diffusion  the U-Net of DDPM against diffusers' with the same weights: forward and backward
graphs   graph networks against PyG's layers with the same weights: an epoch on a graph of Cora's
         size, or a step on 128 molecules, packing included
messages   what an edge costs in message passing, forward and backward, from 1e5 to 1e7 of them
         against 1e4
sampling   neighbours of 1,024 of a million nodes against torch.randint and torch.unique by hand
dcgan, vae, wgan_gp  the trainer against a loop by hand with the same model at the sizes of
         `dcgan_mnist`, `vae_mnist` and `wgan_gp_mnist`, on random images in memory
recurrent  LSTM, written and fused, and GRU against torch's with the same weights
packing  a batch of 1,000 small graphs against PyG's Batch.from_data_list
gpt      the trainer with a small GPT against a loop like nanoGPT's, written by hand
generation  time of 1,024 tokens over that of 256, with and without the cache of keys and values
startup  `train.py --help` and refused command lines against `python -c "import torch"`
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clone  # noqa: F401
from benchmarks.checkpoints import resuming, saving
from benchmarks.diffusion import diffusion
from benchmarks.generative import dcgan, vae, wgan_gp
from benchmarks.graph_scale import messages, sampling
from benchmarks.graphs import graphs
from benchmarks.lightning_loops import first_step, lightning
from benchmarks.loader import images, layout, loader
from benchmarks.models import compiled_models, models
from benchmarks.optimizers import optimizer
from benchmarks.packing import packing
from benchmarks.recurrent import recurrent
from benchmarks.startup import startup
from benchmarks.timing import Skipped
from benchmarks.trainer import trainer
from benchmarks.transformers import generation, gpt
from zoo.training.run_folder import environment

ROOT = Path(__file__).resolve().parents[1]

AVAILABLE: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "trainer": trainer,
    "lightning": lightning,
    "first_step": first_step,
    "optimizer": optimizer,
    "saving": saving,
    "resuming": resuming,
    "layout": layout,
    "loader": loader,
    "images": images,
    "models": models,
    "diffusion": diffusion,
    "graphs": graphs,
    "messages": messages,
    "sampling": sampling,
    "dcgan": dcgan,
    "vae": vae,
    "wgan_gp": wgan_gp,
    "recurrent": recurrent,
    "packing": packing,
    "gpt": gpt,
    "generation": generation,
    "startup": startup,
    "compiled": compiled_models,
}


def record(path: Path, name: str, blocks: int, results: list[dict[str, Any]]) -> None:
    """Writes the figures of one benchmark to the file, which keeps those of the others."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content[name] = {
        "command": f"python scripts/benchmark.py {name} --blocks {blocks}",
        "environment": environment("cpu"),
        "results": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Runs the benchmarks named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", help=f"which: {', '.join(AVAILABLE)} (all but compiled)"
    )
    parser.add_argument("--blocks", type=int, default=11, help="blocks of each side (11)")
    parser.add_argument("--record", type=Path, help="JSON file to write the figures to")
    arguments = parser.parse_args()
    names = arguments.names or [name for name in AVAILABLE if name != "compiled"]
    if unknown := [name for name in names if name not in AVAILABLE]:
        parser.error(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(AVAILABLE)}")
    for name in names:
        try:
            results = AVAILABLE[name](arguments.blocks)
        except Skipped as reason:
            print(f"{name}: skipped. {reason}")
            continue
        if arguments.record:
            record(arguments.record, name, arguments.blocks, results)


if __name__ == "__main__":
    main()
