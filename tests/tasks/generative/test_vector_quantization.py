import math
import signal

import numpy as np
import pytest
import torch
from torch import nn

from tests.tasks.seen import images_of
from tests.training.tiny import At, differences, fit, new_folder, read_rows, without_timings
from zoo.data.images.digits import Digits
from zoo.models.generative.vq_vae import VQVAE
from zoo.tasks.generative.vector_quantization import VectorQuantization
from zoo.training.checkpoints.checkpoint import read
from zoo.training.interruption import Interrupted
from zoo.training.optimizers import make_optimizer
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer


def network(**arguments):
    torch.manual_seed(0)
    return VQVAE(1, **{"hidden_channels": 6, "num_codes": 5, "code_dim": 4, **arguments})


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_loss_is_equation_3(update):
    model = network(update=update).eval()
    task = VectorQuantization(model, beta=0.3)
    images = torch.rand(3, 1, 8, 8)
    task.variance = 0.2
    loss, count, terms = task.loss((images, None))
    found = model(images)
    reconstruction = ((images - found.output) ** 2).mean() / 0.2
    distance = ((found.encoded - found.quantized) ** 2).mean()
    expected = reconstruction + (0.3 if update == "ema" else 1.3) * distance
    torch.testing.assert_close(loss, expected)
    assert count == 3
    torch.testing.assert_close(terms["reconstruction"], reconstruction.detach())


def test_commitment_moves_the_encoder_and_the_other_term_the_codes():
    model = network(update="loss").eval()
    nn.init.zeros_(model.decoder[-1].weight)  # no gradient from the reconstruction
    for beta in (0.0, 1.0):
        model.zero_grad()
        VectorQuantization(model, beta=beta).loss(torch.rand(3, 1, 8, 8))[0].backward()
        assert model.quantizer.codes.grad.abs().sum() > 0
        moves = any(p.grad.abs().sum() > 0 for p in model.encoder.parameters())
        assert moves == (beta > 0)


def test_guess_of_the_mean_costs_one():
    task = VectorQuantization(network().eval())
    images = torch.randn(50, 1, 8, 8) * 3 + 1
    task.prepare([images[:20], images[20:]])
    assert task.variance == pytest.approx(images.var(correction=0).item(), rel=1e-5)
    nn.init.zeros_(task.model.decoder[-1].weight)
    nn.init.constant_(task.model.decoder[-1].bias, images.mean().item())
    assert task.loss(images)[2]["reconstruction"].item() == pytest.approx(1, rel=1e-5)


def test_perplexity_is_the_number_of_codes_that_are_equally_often_in_use():
    task = VectorQuantization(network())
    metric = task.metrics["perplexity"]
    metric.update(torch.tensor([[0, 1], [1, 0]]))
    metric.update(torch.tensor([2, 2]))
    assert metric.compute().item() == pytest.approx(3)
    metric.reset()
    metric.update(torch.tensor([4, 4, 4, 1]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert metric.compute().item() == pytest.approx(math.exp(entropy))


def test_error_is_summed_over_the_pixels_of_an_image():
    task = VectorQuantization(network().eval())
    images = torch.rand(5, 1, 8, 8)
    for part in images.split([3, 2]):
        task.evaluate((part, None))
    made = task.reconstruct(images)
    expected = (images - made).square().sum().item() / 5
    assert task.compute()["reconstruction_error"] == pytest.approx(expected, rel=1e-5)
    assert images_of(task)["reconstructions"].shape == (3, 2 * 66, 3 * 66)
    torch.testing.assert_close(task.predict((images, None)).samples, made)


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_a_run_killed_at_a_random_step_goes_on_bit_for_bit(update, tmp_path):
    def trainer():
        data = Digits(image_size=8, batch_size=16, scaling="unit")
        data.setup(seed=2)
        task = VectorQuantization(network(update=update, decay=0.5, restart_below=2.0))
        return Trainer(
            task,
            data,
            make_optimizer(torch.optim.Adam, task.model, lr=0.01),
            settings=TrainerSettings(
                device="cpu", steps=10, epochs=None, evaluate_every=3, limit_eval_batches=2
            ),
            seed=5,
        )

    whole, killed = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    fit(trainer(), whole)
    step = int(np.random.default_rng().integers(1, 10))

    def stop(trainer):
        trainer.signals.stop = signal.SIGTERM

    with pytest.raises(Interrupted):
        fit(trainer(), killed, [At(step, stop)])
    torch.manual_seed(99)
    fit(trainer(), killed, resume=True)
    assert differences(read_rows(killed.path), read_rows(whole.path)) == [], step
    states = [without_timings(read(f.path / "checkpoints" / "last.pt")) for f in (killed, whole)]
    assert differences(*states) == [], step


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="beta must be at least 0, not -1"):
        VectorQuantization(network(), beta=-1)
    with pytest.raises(TypeError, match=r"model must have encode, .*; Linear lacks encode, decode"):
        VectorQuantization(nn.Linear(2, 2))
