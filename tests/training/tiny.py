"""Tasks of every kind that train in milliseconds, and what tests of the trainer look at."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from faults.outcomes import differences, read_results, read_rows, without_timings  # noqa: F401
from zoo.data.graphs.karate import KarateClub
from zoo.data.images.digits import Digits
from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import DataModule
from zoo.data.text.text import WholeText
from zoo.models.generative.autoencoder import Autoencoder
from zoo.models.generative.diffusion import ddpm_digits
from zoo.models.generative.gan import GAN
from zoo.models.graph.gcn import GCN
from zoo.models.mlp import MLP
from zoo.models.recurrent.language_model import RecurrentLanguageModel
from zoo.tasks.classification import Classification
from zoo.tasks.generative.adversarial import Adversarial
from zoo.tasks.generative.denoising_diffusion import DenoisingDiffusion
from zoo.tasks.generative.reconstruction import Reconstruction
from zoo.tasks.language_modeling import LanguageModeling
from zoo.tasks.node_classification import NodeClassification
from zoo.training.callback import Callback
from zoo.training.callbacks import TIMINGS, EarlyStopping, MetricsFile
from zoo.training.freezing import freeze
from zoo.training.graphs.runners import CudaRunner
from zoo.training.optimizers import make_optimizer, takes_found_inf
from zoo.training.run_folder import RunFolder
from zoo.training.schedules import Cosine, ReduceOnPlateau
from zoo.training.settings import CheckpointSettings, EarlyStoppingSettings, TrainerSettings
from zoo.training.trainer import Trainer


class Samples(DataModule):
    """Random vectors of three classes: 22 samples in batches of 4 make 6 batches, the last of 2."""

    def __init__(
        self,
        *,
        sizes=(22, 10, 7),
        batch_size: int | None = 4,
        shuffle: bool = True,
        dtype: torch.dtype = torch.float32,
        splits: tuple[str, ...] = ("train", "val", "test"),
    ) -> None:
        super().__init__()
        self._splits, self.counts = splits, sizes
        self.batch_size, self.shuffle, self.dtype = batch_size, shuffle, dtype

    @property
    def splits(self) -> tuple[str, ...]:
        return self._splits

    def setup(self, *, seed: int = 0, device: torch.device | str = "cpu") -> "Samples":
        generator = torch.Generator().manual_seed(11)
        for split, count in zip(("train", "val", "test"), self.counts, strict=True):
            inputs = torch.randn(count, 6, generator=generator, dtype=torch.float64)
            targets = torch.randint(3, (count,), generator=generator)
            inputs[:, 0] += targets
            if split in self.splits:
                self.loaders[split] = TensorLoader(
                    (inputs.to(self.dtype), targets),
                    batch_size=self.batch_size,
                    shuffle=self.shuffle and split == "train",
                    seed=seed,
                    device=device,
                )
        return self

    def facts(self) -> dict[str, Any]:
        return {"in_features": 6, "num_classes": 3}


class Text(WholeText):
    def text(self) -> str:
        return "the quick brown fox jumps over the lazy dog\n" * 6


class Rows(Callback):
    """Keeps every row of every curve, without what depends on the moment."""

    def __init__(self) -> None:
        self.rows = []

    def on_log(self, trainer, row) -> None:
        self.rows.append({k: v for k, v in row.items() if k not in TIMINGS})

    def of(self, split):
        return [row for row in self.rows if row["split"] == split]


fused_adagrad = pytest.mark.skipif(
    not takes_found_inf(torch.optim.Adagrad([torch.zeros(1, requires_grad=True)], fused=True)),
    reason="the fused Adagrad of this torch cannot skip an update",
)


class At(Callback):
    """Does something after a given step."""

    def __init__(self, step, action) -> None:
        self.step, self.action = step, action

    def on_step_end(self, trainer) -> None:
        if trainer.step == self.step:
            self.action(trainer)


def mlp(*, dropout: float = 0.0, dtype: torch.dtype = torch.float32, in_features: int = 6) -> MLP:
    torch.manual_seed(5)
    return MLP(in_features, 3, hidden_sizes=(8,), activation="tanh", dropout=dropout).to(dtype)


def normed() -> nn.Sequential:
    """A perceptron with batch normalisation whose statistics are not those of new layers."""
    torch.manual_seed(5)
    norms = nn.BatchNorm1d(8), nn.BatchNorm1d(8)
    for norm in norms:
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return nn.Sequential(
        nn.Linear(6, 8), norms[0], nn.ReLU(), nn.Linear(8, 8), norms[1], nn.ReLU(), nn.Linear(8, 3)
    )


def trainer_of(
    model: nn.Module | None = None,
    data: DataModule | None = None,
    *,
    kind=torch.optim.AdamW,
    optimizer=None,
    schedule=None,
    seed: int = 0,
    checkpoints: dict | None = None,
    task=None,
    layer_gradients: bool = False,
    make_runner=CudaRunner,
    **settings,
) -> Trainer:
    """A trainer of a small classifier; `settings` are those of the trainer."""
    model = model or mlp()
    if task is None:
        task = Classification(model, num_classes=3)
    if not settings.keys() & {"epochs", "steps"}:
        settings["epochs"] = 2
    settings = {"log_every": 1, "train_metrics": False, **settings}
    return Trainer(
        task,
        data or Samples().setup(seed=seed),
        make_optimizer(kind, model, lr=0.01, **(optimizer or {})),
        schedule=schedule,
        settings=TrainerSettings(device="cpu", **settings),
        seed=seed,
        checkpoints=CheckpointSettings(**(checkpoints or {})),
        layer_gradients=layer_gradients,
        make_runner=make_runner,
    )


class Poison(Classification):
    """A task whose loss is ruined at one step."""

    def __init__(self, model, at, bad, *, num_classes=3):
        super().__init__(model, num_classes=num_classes)
        self.at, self.bad, self.calls = at, bad, 0

    def loss(self, batch):
        loss, count = super().loss(batch)
        self.calls += 1
        if self.calls == self.at:
            loss = loss * self.bad if self.bad == "loss" else self.bad(loss, self.model)
        return loss, count


def nan_loss(loss, model):
    return loss * math.nan


def infinite_gradient(loss, model):
    zero = (model.classifier.bias * 0).sum()
    return loss + zero.sqrt()


class Falling(Classification):
    """A task whose monitored metric is what a list says."""

    monitor, mode = "loss", "min"
    values: tuple[float, ...] = ()

    def compute(self):
        step = min(self.evaluations, len(self.values) - 1)
        self.evaluations += 1
        return {"loss": self.values[step], "accuracy": 0.5}

    def state_dict(self):
        return {"evaluations": self.evaluations}

    def load_state_dict(self, state):
        self.evaluations = state["evaluations"]


def falling(values, **options):
    model = mlp()
    task = Falling(model, num_classes=3)
    task.values, task.evaluations = values, 0
    return trainer_of(model, task=task, **options)


KINDS = (
    "classification",
    "adversarial",
    "denoising_diffusion",
    "language_modeling",
    "node_classification",
    "accumulation",
    "average",
    "plateau",
    "frozen",
    "denoising",
)


def build(kind: str) -> tuple[Trainer, list[Callback]]:
    """A trainer for each kind of task and mechanism, and its callbacks, always the same ones."""
    settings: dict = {"log_every": 2, "limit_eval_batches": 3}
    checkpoints: dict = {}
    callbacks: list[Callback] = []
    schedule = Cosine(warmup_steps=2)
    data: DataModule
    torch.manual_seed(3)
    if kind == "classification":
        data = Digits(batch_size=16, image_size=8, augment=True)
        model = MLP(64, 10, hidden_sizes=(8,), dropout=0.3)
        task = Classification(model, num_classes=10)
        settings |= {"steps": 10, "epochs": None, "limit_train_batches": 4, "clip_norm": 0.5}
    elif kind == "adversarial":
        data = Digits(batch_size=16, image_size=8, scaling="symmetric")
        model = GAN(8, 1, latent_dim=4, hidden_sizes=(8,), maxout_sizes=(6,), pieces=2)
        task = Adversarial(model, num_components=3, generator_every=2)
        settings |= {"steps": 8, "epochs": None, "limit_train_batches": 3, "evaluate_every": 2}
    elif kind == "denoising":
        data = Digits(batch_size=16, image_size=8, scaling="unit")
        model = Autoencoder(8, 1, hidden_sizes=(8,), latent_dim=3, code="sigmoid")
        task = Reconstruction(
            model, corruption="masking", sparsity="kl", contraction_weight=0.1, loss="cross_entropy"
        )
        settings |= {"steps": 8, "epochs": None, "limit_train_batches": 3, "evaluate_every": 4}
    elif kind == "denoising_diffusion":
        data = Digits(batch_size=8, image_size=8, scaling="symmetric")
        model = ddpm_digits(channels=(4, 4), num_groups=2, dropout=0.2, num_classes=10)
        task = DenoisingDiffusion(model, levels=17, sampling_steps=4, guidance=2.0)
        settings |= {"steps": 7, "epochs": None, "limit_train_batches": 3, "evaluate_every": 3}
        settings |= {"ema_decay": 0.9, "limit_eval_batches": 1}
    elif kind == "language_modeling":
        data = Text(batch_size=4, sequence_length=8)
        model = RecurrentLanguageModel(28, embed_dim=6, hidden_size=6, num_layers=2, dropout=0.2)
        data.setup()
        task = LanguageModeling(model, vocabulary=data.vocabularies["vocabulary"], sample_length=4)
        settings |= {"epochs": 2}
    elif kind == "node_classification":
        data = KarateClub(labels_per_class=2)
        model = GCN(34, 2, hidden_channels=4)
        task = NodeClassification(model, num_classes=2)
        settings |= {"steps": 8, "epochs": None, "evaluate_every": 3}
    elif kind == "frozen":
        data = Samples()
        model = normed()
        freeze(model, ["0.*", "1.*"])
        task = Classification(model, num_classes=3, class_weights="balanced", label_smoothing=0.1)
        settings |= {"epochs": 2, "ema_decay": 0.9, "clip_norm": 0.5}
    else:
        data = Samples()
        model = MLP(6, 3, hidden_sizes=(8,), dropout=0.3)
        task = Classification(model, num_classes=3)
        settings |= {"epochs": 3}
        if kind == "accumulation":
            settings |= {"accumulate": 4, "evaluate_every": 3, "log_every": 3}
        elif kind == "average":
            settings |= {"ema_decay": 0.8, "epochs": 2}
            checkpoints["top_k"] = 2
        elif kind == "plateau":
            schedule = ReduceOnPlateau(gamma=0.5, patience=0)
            settings |= {"evaluate_every": 2, "epochs": 5}
            checkpoints["monitor"] = "loss"
            patience = EarlyStoppingSettings(patience=3, min_delta=0.02)
            callbacks.append(EarlyStopping(patience))
    data.setup(seed=1)
    optimizers = {
        name: make_optimizer(torch.optim.AdamW, network, lr=0.05)
        for name, network in task.networks().items()
    }
    trainer = Trainer(
        task,
        data,
        optimizers,
        schedule=schedule,
        settings=TrainerSettings(device="cpu", **settings),
        seed=7,
        checkpoints=CheckpointSettings(**checkpoints),
    )
    return trainer, callbacks


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def new_folder(path) -> RunFolder:
    return RunFolder.create(path)


def fit(trainer, folder, callbacks=(), *, resume=False):
    """Trains as `train.py` does, with a file of metrics in the run folder."""
    files = [MetricsFile(folder.path), *callbacks]
    return trainer.fit(folder=folder, callbacks=files, resume=resume)
