"""GPT in the trainer against a loop by hand in nanoGPT's way, and generation with a cache."""

import math
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.data import TrainingOnly
from benchmarks.timing import interleave, ratio
from zoo.data.loading.windows import WindowLoader
from zoo.inference.generation import Sampler, continuation
from zoo.models.transformer.gpt import GPT, gpt_char
from zoo.tasks.language_modeling import LanguageModeling
from zoo.training.optimizers import make_optimizer
from zoo.training.schedules import Cosine
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer

# nanoGPT's setting for a CPU; as many characters as tiny Shakespeare has to train on.
BATCH, TIME, VOCABULARY, LENGTH = 12, 64, 65, 1_003_854
LAYERS, HEADS, WIDTH = 4, 4, 128
RATE, FINAL, WARMUP, DECAY, BETAS = 1e-3, 0.1, 100, 0.1, (0.9, 0.99)
STEPS = 20

# ---------------------------------------------------------------------- nanoGPT's way


class _Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.c_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.resid_dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.c_attn(x).split(WIDTH, dim=2)
        k = k.view(b, t, HEADS, c // HEADS).transpose(1, 2)  # (batch, heads, time, head_dim)
        q = q.view(b, t, HEADS, c // HEADS).transpose(1, 2)  # (batch, heads, time, head_dim)
        v = v.view(b, t, HEADS, c // HEADS).transpose(1, 2)  # (batch, heads, time, head_dim)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.0, is_causal=True)
        y = y.transpose(1, 2).contiguous().view(b, t, c)
        return self.resid_dropout(self.c_proj(y))


class _MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_fc = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.gelu = nn.GELU()
        self.c_proj = nn.Linear(4 * WIDTH, WIDTH, bias=False)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2, self.mlp = _Norm(WIDTH), _Attention(), _Norm(WIDTH), _MLP()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class _NanoGPT(nn.Module):
    """The network in nanoGPT's way: linear layers, and the loss from the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, WIDTH)
        self.wpe = nn.Embedding(TIME, WIDTH)
        self.drop = nn.Dropout(0.0)
        self.h = nn.ModuleList(_Block() for _ in range(LAYERS))
        self.ln_f = _Norm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        positions = torch.arange(tokens.size(1), dtype=torch.long)
        x = self.drop(self.wte(tokens) + self.wpe(positions))  # (batch, time, width)
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))  # (batch, time, vocabulary)
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)
        return logits, loss


def _transposed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's state dict with the matrices of linear layers."""
    layers = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {
        name.removeprefix("transformer."): t.t() if name.endswith(layers) else t
        for name, t in state.items()
    }


def _loop(model: _NanoGPT, tokens: Tensor) -> float:
    """Seconds a step of the loop in nanoGPT's way."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
    began = time.perf_counter()
    for step in range(STEPS):
        rate = _rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        places = torch.randint(len(tokens) - TIME, (BATCH,))
        inputs = torch.stack([tokens[i : i + TIME] for i in places])
        targets = torch.stack([tokens[i + 1 : i + 1 + TIME] for i in places])
        _, loss = model(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (time.perf_counter() - began) / STEPS


def _rate(step: int) -> float:
    if step < WARMUP:
        return RATE * (step + 1) / (WARMUP + 1)
    share = (step - WARMUP) / (2000 - WARMUP)
    return RATE * (FINAL + 0.5 * (1 + math.cos(math.pi * share)) * (1 - FINAL))


# ----------------------------------------------------------------------------- our way


def _trained(model: GPT, data: TrainingOnly) -> float:
    """Seconds a step in the trainer."""
    trainer = Trainer(
        LanguageModeling(model),
        data,
        make_optimizer(torch.optim.AdamW, model, lr=RATE, betas=BETAS, weight_decay=DECAY),
        schedule=Cosine(final=FINAL, warmup_steps=WARMUP),
        settings=TrainerSettings(
            epochs=None, steps=STEPS, device="cpu", clip_norm=1.0, log_every=STEPS
        ),
    )
    trainer.fit()
    return trainer.position.seconds / STEPS


def _passes(model: GPT, data: TrainingOnly) -> float:
    """Seconds a step of nothing but the forward and backward passes: no trainer takes less."""
    task, batches = LanguageModeling(model), list(islice(data.batches("train", 0), STEPS))
    began = time.perf_counter()
    for batch in batches:
        task.loss(batch)[0].backward()
        model.zero_grad()
    return (time.perf_counter() - began) / STEPS


def gpt(blocks: int) -> list[dict[str, Any]]:
    """The trainer with `gpt_char` against a loop in nanoGPT's way, both as they come."""
    tokens = torch.randint(VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    ours, theirs = gpt_char().train(), _NanoGPT().train()
    theirs.load_state_dict(_transposed(ours.state_dict()))
    data = TrainingOnly(WindowLoader(tokens, batch_size=BATCH, sequence_length=TIME, shuffle=True))
    batch = next(data.batches("train", 0))
    with torch.no_grad():
        losses = LanguageModeling(ours).loss(batch)[0], theirs(batch.inputs, batch.targets)[1]
    if not torch.allclose(*losses, rtol=1e-5):
        raise SystemExit(f"the two networks disagree: losses {losses}")
    print(f"gpt: the same loss on both sides, {losses[0]:.6f}")
    trainer, loop = "gpt_char, trainer", "gpt_char, loop in nanoGPT's way"
    floor = "gpt_char, forward and backward alone"
    sides: dict[str, Callable[[], float]] = {
        trainer: partial(_trained, ours, data),
        loop: partial(_loop, theirs, tokens),
        floor: partial(_passes, ours, data),
    }
    times = interleave(sides, blocks)
    return [ratio(times, trainer, loop, 0.85), ratio(times, floor, loop)]


# -------------------------------------------------------------------------- generation


class _Bare(nn.Module):
    """A language model without its cache: every token is drawn from all those before it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)


def _drawn(model: nn.Module, length: int) -> Tensor:
    start = torch.zeros(1, 1, dtype=torch.int64)
    return torch.cat(list(islice(continuation(model, start, Sampler(0.0)), length)), 1)


def _generated(model: nn.Module, length: int) -> float:
    """Seconds a token of a text of some length."""
    began = time.perf_counter()
    _drawn(model, length)
    return (time.perf_counter() - began) / length


def generation(blocks: int) -> list[dict[str, Any]]:
    """Seconds a token of texts of 256 and 1,024 tokens: linear in the length with a cache."""
    torch.manual_seed(0)
    cached = gpt_char(sequence_length=1100, embed_dim=64, num_layers=2, num_heads=2).eval()
    bare = _Bare(cached)
    if not torch.equal(_drawn(cached, 100), _drawn(bare, 100)):
        raise SystemExit("generation: the cache changes the text")
    print("generation: the same text with and without the cache")
    sides: dict[str, Callable[[], float]] = {
        f"a token of {length}, {kind}": partial(_generated, model, length)
        for kind, model in (("cache", cached), ("no cache", bare))
        for length in (256, 1024)
    }
    times = interleave(sides, blocks)
    short, long, bare_short, bare_long = sides
    return [
        # Equal costs a token are a cost of the text that is linear in its length.
        ratio(times, long, short, 1.3),
        ratio(times, long, bare_long, 0.3),
        ratio(times, bare_short, bare_long, 0.6),
    ]
