"""Steps of generative models through the trainer against loops by hand, at the experiments' sizes.

Both sides have the same network, batches, random numbers and fused optimizers, and what they have
learned must be the same bit for bit before anything is timed.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.data import TrainingOnly
from benchmarks.timing import interleave, ratio
from zoo.data.loading.tensor import TensorLoader
from zoo.models.generative.dcgan import DCGAN
from zoo.models.generative.variational_autoencoder import VariationalAutoencoder
from zoo.models.generative.wgan import WGAN
from zoo.tasks.generative.adversarial import Adversarial
from zoo.tasks.generative.variational import VariationalInference
from zoo.tasks.task import Task
from zoo.training.optimizers import make_optimizer
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer

SEED, LATENTS, CRITIC_STEPS, PENALTY = 0, 128, 5, 10.0

Optimizers = dict[str, torch.optim.Optimizer]


class _Case(NamedTuple):
    """A model with its task and optimizers, and what a loop by hand does with a batch."""

    make: Callable[[], nn.Module]
    task: Callable[[nn.Module], Task]
    adam: dict[str, Any]
    step: Callable[[Any, Optimizers, int, Tensor], None]
    batch: int
    steps: int
    images: Callable[[Tensor], Tensor]
    """Numbers from 0 to 1 to images as the model wants them."""


# ---------------------------------------------------------------------------- by hand


def _dcgan_step(model: Any, optimizers: Optimizers, step: int, real: Tensor) -> None:
    """As in PyTorch's example: both updates judge the same generated images."""
    generator, discriminator = model.generator, model.discriminator
    fake = generator(torch.randn(len(real), model.latent_dim))
    ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
    loss = F.binary_cross_entropy_with_logits(discriminator(real), ones)
    loss = loss + F.binary_cross_entropy_with_logits(discriminator(fake.detach()), zeros)
    loss.backward()
    optimizers["discriminator"].step()
    optimizers["discriminator"].zero_grad()
    discriminator.requires_grad_(False)  # The generator's update needs no gradient of it.
    F.binary_cross_entropy_with_logits(discriminator(fake), ones).backward()
    optimizers["generator"].step()
    optimizers["generator"].zero_grad()
    discriminator.requires_grad_(True)


def _wgan_gp_step(model: Any, optimizers: Optimizers, step: int, real: Tensor) -> None:
    """Algorithm 1 with a new batch for each update of the critic."""
    generator, critic = model.generator, model.discriminator
    with torch.no_grad():
        fake = generator(torch.randn(len(real), LATENTS))
    loss = -critic(real).mean() + critic(fake).mean()
    alpha = torch.rand(len(real), 1, 1, 1)
    between = (alpha * real + (1 - alpha) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = torch.linalg.vector_norm(slope.flatten(1), dim=1)  # (batch,)
    (loss + PENALTY * (norm - 1).square().mean()).backward()
    optimizers["discriminator"].step()
    optimizers["discriminator"].zero_grad()
    if (step + 1) % CRITIC_STEPS == 0:
        critic.requires_grad_(False)
        (-critic(generator(torch.randn(len(real), LATENTS))).mean()).backward()
        optimizers["generator"].step()
        optimizers["generator"].zero_grad()
        critic.requires_grad_(True)


def _vae_step(model: Any, optimizers: Optimizers, step: int, images: Tensor) -> None:
    """The bound of Kingma and Welling, equation 10, with one latent sample an image."""
    found = model(images)
    logits = found.output[0]
    pixels = F.binary_cross_entropy_with_logits(logits, images, reduction="none")
    variance = found.log_variance.exp()
    kl = 0.5 * (found.mean.square() + variance - 1 - found.log_variance)  # (batch, latent_dim)
    (pixels.flatten(1).sum(1).mean() + kl.mean(0).sum()).backward()
    optimizers["model"].step()
    optimizers["model"].zero_grad()


CASES = {
    "dcgan": _Case(
        make=lambda: DCGAN(28, 1, base_channels=16),
        task=lambda model: Adversarial(model, reuse_fake=True),
        adam={"lr": 2e-4, "betas": (0.5, 0.999)},
        step=_dcgan_step,
        batch=128,
        steps=20,
        images=lambda x: 2 * x - 1,
    ),
    "vae": _Case(
        make=lambda: VariationalAutoencoder(
            28, 1, latent_dim=50, hidden_sizes=(200, 200), activation="tanh"
        ),
        task=VariationalInference,
        adam={"lr": 1e-3},
        step=_vae_step,
        batch=100,
        steps=300,
        images=torch.bernoulli,
    ),
    "wgan_gp": _Case(
        make=lambda: WGAN(1, latent_dim=LATENTS, base_channels=16),
        task=lambda model: Adversarial(
            model, loss="wasserstein", gradient_penalty=PENALTY, generator_every=CRITIC_STEPS
        ),
        adam={"lr": 1e-4, "betas": (0.5, 0.9)},
        step=_wgan_gp_step,
        batch=50,
        steps=40,
        images=lambda x: x,
    ),
}

# --------------------------------------------------------------------------- both sides


def _parts(case: _Case) -> tuple[nn.Module, Task, Optimizers]:
    torch.manual_seed(SEED)
    model = case.make()
    task = case.task(model)
    optimizers = {
        name: make_optimizer(torch.optim.Adam, network, **case.adam)
        for name, network in task.networks().items()
    }
    return model, task, optimizers


def _by_trainer(case: _Case, data: TrainingOnly) -> tuple[float, nn.Module]:
    """Seconds a step in the trainer, and what it has learned."""
    model, task, optimizers = _parts(case)
    settings = TrainerSettings(epochs=1, device="cpu", log_every=case.steps)
    trainer = Trainer(task, data, optimizers, settings=settings, seed=SEED)
    trainer.fit()
    return trainer.position.seconds / case.steps, model


def _by_hand(case: _Case, data: TrainingOnly) -> tuple[float, nn.Module]:
    """Seconds a step of the loop by hand, and what it has learned."""
    model, task, optimizers = _parts(case)
    task.prepare(data.batches("train", 0))  # A decoder may start at the mean image.
    model.to(memory_format=torch.channels_last).train()
    torch.manual_seed(SEED)
    began = time.perf_counter()
    for number, (images,) in enumerate(data.batches("train", 0)):
        case.step(model, optimizers, number, images)
    return (time.perf_counter() - began) / case.steps, model


def images_for(case: _Case) -> TrainingOnly:
    """Random images of 28x28 for one block."""
    torch.manual_seed(SEED)
    images = case.images(torch.rand(case.batch * case.steps, 1, 28, 28))
    images = images.contiguous(memory_format=torch.channels_last)
    return TrainingOnly(TensorLoader((images,), batch_size=case.batch))


def disagreement(case: _Case, data: TrainingOnly) -> str | None:
    """What is not the same bit for bit in both sides after a block, if anything."""
    ours, theirs = (side(case, data)[1].state_dict() for side in (_by_trainer, _by_hand))
    return next((key for key, value in ours.items() if not torch.equal(value, theirs[key])), None)


def measure(name: str, blocks: int) -> list[dict[str, Any]]:
    """One of `CASES`: the trainer against the loop by hand."""
    case = CASES[name]
    data = images_for(case)
    if key := disagreement(case, data):
        raise SystemExit(f"{name}: trainer and loop by hand disagree about {key}")
    print(f"{name}: weights equal bit for bit after {case.steps} steps")
    trainer, loop = f"{name}, trainer", f"{name}, loop by hand"
    runs: dict[str, Callable[[], float]] = {
        trainer: lambda: _by_trainer(case, data)[0],
        loop: lambda: _by_hand(case, data)[0],
    }
    return [ratio(interleave(runs, blocks), trainer, loop, 1.05)]


dcgan, vae, wgan_gp = (partial(measure, name) for name in CASES)
