"""Predicts memory and step time of large Transformers on several GPUs, from counts alone.

    python scripts/scaling.py [model=gpt2_xl] [batch=8] [sequence=1024] [mfu=0.4]

Nothing here has been measured: `batch` samples of `sequence` tokens a GPU, on GPUs with the
memory, the speed and the links of an H100 SXM, eight of them in a machine.

- Weights, gradients and AdamW's two means: 4 + 4 + 8 bytes a parameter, in single precision. All
  of it in each process with `trainer.strategy=ddp`; its share of it with `fsdp`, and the weights of
  two blocks, in bf16, that are gathered at a time.
- Activations in bf16: 34 bytes for each token, layer and unit of width, and 2 where a block is
  computed again in the backward pass (Korthikanti et al., 2022, https://arxiv.org/abs/2205.05198,
  section 4; attention by a fused kernel keeps no matrix of weights), for each logit 10.
- Operations: 6 for each parameter and token, and 12 for each layer, unit of width and pair of
  tokens (Chowdhery et al., 2022, https://arxiv.org/abs/2204.02311, appendix B), a third more where
  blocks are computed again; at the share `mfu` of the GPU's peak.
- Bytes over the links: an all-reduce of the gradients (`ddp`), or two times the weights in bf16 and
  once the gradients in fp32 (`fsdp`). The step takes the longer of the two, since they overlap.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import clone  # noqa: F401

# isort: split
import torch
from torch import nn

from zoo.app.program import program
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError
from zoo.models.transformer.gpt import gpt2, gpt2_large, gpt2_medium, gpt2_xl
from zoo.models.transformer.llama import llama2_7b, llama3_8b, tinyllama_1_1b
from zoo.training.utilization import PEAKS

MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": gpt2,
    "gpt2_medium": gpt2_medium,
    "gpt2_large": gpt2_large,
    "gpt2_xl": gpt2_xl,
    "tinyllama_1_1b": tinyllama_1_1b,
    "llama2_7b": llama2_7b,
    "llama3_8b": llama3_8b,
}
WORLDS = (1, 8, 64)
MACHINE = 8
MEMORY = 80e9
"""Bytes of a GPU."""
PEAK = PEAKS["H100"]
"""Operations a second in bf16, without sparsity."""
LINKS, NETWORK = 450e9, 50e9
"""Bytes a second that a GPU sends: to those of its machine, and to others."""


class Counts(NamedTuple):
    """What the numbers of a network are computed from.

    Attributes:
        parameters: of all of it.
        block: of its largest block.
        blocks: how many of these there are.
        width: of a position.
        tokens: in the vocabulary.
    """

    parameters: int
    block: int
    blocks: int
    width: int
    tokens: int


class Predicted(NamedTuple):
    """Bytes in a process, and the seconds of a step."""

    bytes: float
    seconds: float


def counts(make: Callable[[], nn.Module]) -> Counts:
    """Counts a network that is made without memory."""
    with torch.device("meta"):
        model = make()

    def size(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    (blocks,) = (m for m in model.modules() if isinstance(m, nn.ModuleList))
    embedding = next(m for m in model.modules() if isinstance(m, nn.Embedding))
    return Counts(
        size(model),
        max(map(size, blocks)),
        len(blocks),
        embedding.embedding_dim,
        embedding.num_embeddings,
    )


def predicted(
    found: Counts,
    world: int,
    *,
    sharded: bool,
    recomputed: bool,
    batch: int,
    sequence: int,
    mfu: float,
) -> Predicted:
    """Memory of a process and time of a step, see the head of this file."""
    n, tokens = found.parameters, batch * sequence
    state = 16 * n / world + 2 * 2 * found.block if sharded and world > 1 else 16 * n
    unit = tokens * found.width
    kept = unit * (2 * found.blocks + 34 if recomputed else 34 * found.blocks)
    operations = tokens * (6 * n + 12 * found.blocks * found.width * sequence)
    computing = operations * (4 / 3 if recomputed else 1) / (PEAK * mfu)
    sent = (2 * 2 + 4 if sharded else 2 * 4) * n * (world - 1) / world
    sending = sent / (LINKS if world <= MACHINE else NETWORK)
    return Predicted(state + kept + 10 * tokens * found.tokens, max(computing, sending))


def rows(name: str, *, batch: int, sequence: int, mfu: float) -> list[list[str]]:
    """A row for each number of GPUs and each way to share them."""
    found, table = counts(MODELS[name]), []
    for world in WORLDS:
        for how in ("ddp", "fsdp", "fsdp, recomputed")[: 1 if world == 1 else None]:
            size, seconds = predicted(
                found,
                world,
                sharded=how != "ddp",
                recomputed="recomputed" in how,
                batch=batch,
                sequence=sequence,
                mfu=mfu,
            )
            fits = "yes" if size < MEMORY else "no"
            rate = world * batch * sequence / seconds
            table.append(
                [
                    *(name, str(world), how, f"{size / 1e9:.1f}", fits),
                    *(f"{seconds:.2f}", f"{rate / 1e3:,.0f}"),
                ]
            )
    return table


def predict(line: CommandLine) -> None:
    """Prints the table of the models that are asked for."""
    if line.overrides:
        raise ConfigError(f"{line.overrides[0]}: there is model, batch, sequence and mfu")
    name = line.options.get("model")
    if name is not None and name not in MODELS:
        raise ConfigError(f"model={name}: there is {', '.join(MODELS)}")
    mfu = line.number("mfu", 0.4)
    if not 0 < mfu <= 1:
        raise ConfigError(f"mfu={mfu:g}: must be above 0 and at most 1")
    batch, sequence = (line.integer(k, d, least=1) for k, d in (("batch", 8), ("sequence", 1024)))
    head = ["model", "GPUs", "strategy", "GB a GPU", "fits", "seconds a step", "1,000 tokens/s"]
    lines = [head, ["---"] * len(head)]
    for model in [name] if name else ["gpt2_xl", "llama2_7b"]:
        lines += rows(model, batch=batch, sequence=sequence, mfu=mfu)
    print("computed, not measured\n")
    print("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


main = program(predict, __doc__, options=("model", "batch", "sequence", "mfu"))

if __name__ == "__main__":
    sys.exit(main())
