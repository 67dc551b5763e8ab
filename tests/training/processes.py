"""What the tests of several processes run in each of two: every case leaves its findings in a file.

python tests/training/processes.py <rank> <folder>
"""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(1, str(Path(__file__).parents[2] / "scripts"))

from tests.training.test_blocks import unet
from tests.training.tiny import Samples, mlp
from zoo.data.text.characters import CharacterVocabulary
from zoo.models.generative.gan import GAN
from zoo.models.transformer.gpt import GPT
from zoo.tasks.classification import Classification
from zoo.tasks.generative.adversarial import Adversarial
from zoo.tasks.language_modeling import LanguageModeling
from zoo.tasks.task import Objective
from zoo.training.callback import Callback
from zoo.training.checkpoints.shard_files import SHARDS
from zoo.training.distributed.replicated import Replicated
from zoo.training.distributed.sharded import Sharded
from zoo.training.distributed.strategy import OneProcess
from zoo.training.optimizers import make_optimizer
from zoo.training.settings import CheckpointSettings, TrainerSettings
from zoo.training.trainer import Trainer
from zoo.training.update import NonFiniteError

WORLD = 2


class Part(Samples):
    """Two global batches of four samples, of which the first process gets one and the other three.

    Args:
        rank: whose part; None: all samples.
    """

    def __init__(self, rank, *, sizes=(8, 4, 4), splits=("train",)):
        super().__init__(sizes=sizes, batch_size=4, shuffle=False, splits=splits)
        self.rank = rank
        self.setup()

    def batches(self, split, epoch, start=0):
        part = {None: slice(None), 0: slice(0, 1), 1: slice(1, 4)}[self.rank]
        for batch in super().batches(split, epoch, start):
            yield tuple(tensor[part] for tensor in batch)


class Penalised(Classification):
    """Differentiates inside its loss."""

    def loss(self, batch):
        inputs, targets = batch
        inputs = inputs.clone().requires_grad_()
        logits = self.model(inputs)
        (slope,) = torch.autograd.grad(logits.square().sum(), inputs, create_graph=True)
        penalty = slope.square().sum(1).mean()
        return F.cross_entropy(logits, targets) + 0.1 * penalty, len(inputs)


class Several(Classification):
    """Has objectives of its own."""

    def objectives(self, batch):
        yield Objective(*self.loss(batch))


class Images(Part):
    """The same samples as images of two by two pixels."""

    def batches(self, split, epoch, start=0):
        for inputs, targets in super().batches(split, epoch, start):
            yield inputs[:, :4].reshape(-1, 1, 2, 2).tanh(), targets


class Tokens(Part):
    """The same samples as texts of six tokens."""

    def batches(self, split, epoch, start=0):
        for inputs, _ in super().batches(split, epoch, start):
            tokens = (inputs * 100).long() % 11
            yield tokens, tokens.roll(-1, 1), True


class Generative(Adversarial):
    """Noise that is a function of each sample, so that it does not depend on the process."""

    def _noise_for(self, real):
        return torch.sin(37 * real.flatten(1)[:, :3])


class Spoiled(Classification):
    """Its loss is not a number in one process and one step."""

    calls = 0

    def loss(self, batch):
        loss, count = super().loss(batch)
        self.calls += self.model.training
        if self.calls == 5 and dist.is_initialized() and dist.get_rank() == 1:
            loss = loss * float("nan")
        return loss, count


class Losses(Callback):
    def __init__(self):
        self.found = []

    def on_log(self, trainer, row):
        self.found.append(row["loss"])


def gan():
    torch.manual_seed(2)
    model = GAN(2, 1, latent_dim=3, hidden_sizes=(5,), maxout_sizes=(4,), pieces=2)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


MOMENTUM = {"optimizer": torch.optim.SGD, "lr": 0.1, "momentum": 0.9}


def trainer_of(strategy, task, data, *, optimizer=None, penalties=None, **settings):
    strategy.wrap(task)
    kind, *_ = (optimizer or MOMENTUM).values()
    arguments = {k: v for k, v in (optimizer or MOMENTUM).items() if k != "optimizer"}
    optimizers = {
        name: make_optimizer(kind, network, **arguments, **(penalties or {}))
        for name, network in task.networks().items()
    }
    settings = {"steps": 4, "epochs": None, "log_every": 1, **settings}
    return Trainer(
        task,
        data,
        optimizers,
        settings=TrainerSettings(device="cpu", **settings),
        checkpoints=CheckpointSettings(monitor="loss"),
        strategy=strategy,
    )


def trained(strategy, task, data, **settings):
    """The whole weights after training, and what was logged."""
    trainer, losses = trainer_of(strategy, task, data, **settings), Losses()
    trainer.fit(callbacks=[losses] if len(task.networks()) == 1 else [])
    state = trainer.state_dict()
    own = strategy.local([p.detach() for p in task.model.parameters()])
    return {
        "model": {k: v.clone() for k, v in state["model"].items()},
        "optimizers": state["optimizers"],
        "ranks": len(state["ranks"]),
        "losses": losses.found,
        "engine": getattr(strategy, "_engine", None) is not None,
        "own": [p.clone() for p in own],
    }


def gpt():
    torch.manual_seed(4)
    return GPT(
        11,
        sequence_length=6,
        embed_dim=8,
        num_layers=2,
        num_heads=2,
        dropout=0.0,
        bias=False,  # Of keys it has no gradient but rounding errors, of which Adam makes steps.
    )


KINDS = {
    "ordinary": lambda rank, build: (Classification(build(mlp), num_classes=3), Part(rank)),
    "objectives": lambda rank, build: (Several(build(mlp), num_classes=3), Part(rank)),
    "differentiates": lambda rank, build: (Penalised(build(mlp), num_classes=3), Part(rank)),
    "gan": lambda rank, build: (Generative(build(gan), num_components=2), Images(rank)),
    "gpt": lambda rank, build: (LanguageModeling(build(gpt), sample_length=0), Tokens(rank)),
}
ADAMW = {"optimizer": torch.optim.AdamW, "lr": 0.01, "weight_decay": 0.1}
SETTINGS = {
    "plain": {},
    "adamw": {"optimizer": ADAMW, "clip_norm": 0.5, "steps": 5},
    "averaged": {"ema_decay": 0.5, "steps": 5},  # With no evaluation, the average is what is left.
    "accumulated": {"accumulate": 2, "clip_norm": 0.1},
    "penalised": {"penalties": {"l1": 1e-3, "towards_start": 0.05, "max_norm": 0.9}},
}


CASES = [(k, s) for k in KINDS for s in SETTINGS if (k == "gpt") == (s in ("adamw", "averaged"))]


def alone(kind, settings):
    return trained(OneProcess(), *KINDS[kind](None, lambda make: make()), **SETTINGS[settings])


def unet_in_shards():
    """The network of a diffusion, whose levels hold lists of blocks themselves."""
    strategy = Sharded()
    model = strategy.build(unet)
    strategy.wrap(Classification(model, num_classes=2))
    assert model(torch.randn(2, 1, 8, 8), torch.ones(2)).shape == (2, 1, 8, 8)
    return model


def read_back(rank, folder):
    """What a process reads of the shards that two have written, against what it had."""

    def trainer():
        strategy = Sharded()
        task, data = KINDS["gpt"](rank, strategy.build)
        return trainer_of(strategy, task, data, optimizer=ADAMW, ema_decay=0.5)

    def parts(state):
        tensors = torch.utils._pytree.tree_leaves(state)
        return [t.to_local() for t in tensors if isinstance(t, DTensor)]

    before, after = trainer(), trainer()
    before.fit()
    state = before.state.state_dict(whole=False)
    rest, written = before.strategy.write_shards(state, folder if rank == 0 else None)
    written.result()
    dist.barrier()
    shared = after.strategy.share_state({**rest, SHARDS: folder} if rank == 0 else None)
    after.load_state_dict(shared)
    had, has = parts(state), parts(after.state.state_dict(whole=False))
    return {
        "read": sum(part.numel() for part in parts(shared)),
        "whole": sum(
            part.numel()
            for part in torch.utils._pytree.tree_leaves(shared)
            if isinstance(part, DTensor)
        ),
        "shared": shared["model"]["lm_head.weight"] is shared["model"]["transformer.wte.weight"],
        "tensors": len(has),
        "equal": len(had) == len(has) and all(map(torch.equal, had, has)),
    }


def main(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=100),
    )
    found = {}
    for kind, name in CASES:
        for strategy in (Replicated(), Sharded()):
            case = f"{type(strategy).__name__} {kind} {name}"
            try:
                parts = KINDS[kind](rank, strategy.build)
                found[case] = trained(strategy, *parts, **SETTINGS[name])
            except ValueError as error:
                found[case] = str(error)
    for strategy in (Replicated, Sharded):
        trainer = trainer_of(strategy(), Spoiled(mlp(), num_classes=3), Part(rank))
        try:
            trainer.fit()
        except NonFiniteError as error:
            found[f"{strategy.__name__} spoiled"] = trainer.step, str(error)
    strategy = Sharded()
    letters = CharacterVocabulary("abcdefghijk")
    task = LanguageModeling(strategy.build(gpt), sample_length=9, vocabulary=letters)
    trainer = trainer_of(strategy, task, Tokens(rank, splits=("train", "val")))
    trainer.fit()
    found["text"] = [entry.text for entry in trainer.show().values()]
    found["levels"] = [isinstance(p, DTensor) for p in unet_in_shards().parameters()]
    found["read back"] = read_back(rank, Path(folder) / "shards")
    made = Sharded().build(gpt)
    found["memory"] = sum(p.nbytes for p in made.parameters() if not p.is_meta)
    strategy = Replicated()
    flag = torch.tensor(float(rank))
    strategy.any(flag)
    found["any"] = flag
    found["total"] = strategy.total(torch.tensor(1.5 + rank), 3 + rank)
    found["main"] = strategy.is_main
    torch.manual_seed(rank)
    task = Classification(nn.Linear(6, 3), num_classes=3)
    strategy.wrap(task)
    found["wrapped"] = task.model.weight.detach().clone()
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
