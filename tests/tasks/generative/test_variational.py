import copy
import itertools
import math
import signal
import warnings

import numpy as np
import pytest
import torch
from torch import distributions, nn
from torch.nn import functional as F

from tests.tasks.seen import images_of
from tests.training.tiny import At, differences, fit, new_folder, read_rows, without_timings
from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import DataModule
from zoo.models.generative.variational_autoencoder import VariationalAutoencoder
from zoo.tasks.generative.base import Decodes, Encodes
from zoo.tasks.generative.variational import (
    VariationalInference,
    divergence,
    log_likelihood,
    log_weights,
)
from zoo.training.checkpoints.checkpoint import read
from zoo.training.interruption import Interrupted
from zoo.training.optimizers import make_optimizer
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer


def network(seed=0, **arguments):
    torch.manual_seed(seed)
    return VariationalAutoencoder(4, 1, **{"latent_dim": 3, "hidden_sizes": (8,), **arguments})


def binary(count=12, seed=1, classes=3):
    generator = torch.Generator().manual_seed(seed)
    images = torch.bernoulli(torch.full((count, 1, 4, 4), 0.4), generator=generator)
    return images, torch.arange(count) % classes


def spread(model):
    """The model with a posterior that is far from the prior."""
    for layer in (model.encoder.mean, model.encoder.log_variance):
        nn.init.normal_(layer.bias)
    return model


# ------------------------------------------------------------------------------- theory


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_every_part_of_the_bound_equals_torchs_distributions(likelihood):
    model = spread(network(likelihood=likelihood, variance=0.3)).double()
    images = binary()[0].double()
    found = model(images, samples=5)
    posterior = distributions.Normal(found.mean, (0.5 * found.log_variance).exp())
    prior = distributions.Normal(torch.zeros(3).double(), torch.ones(3).double())
    pixels = (
        distributions.Bernoulli(logits=found.output)
        if likelihood == "bernoulli"
        else distributions.Normal(found.output, 0.3**0.5)
    )
    expected = pixels.log_prob(images.expand_as(found.output)).sum((2, 3, 4))
    torch.testing.assert_close(log_likelihood(images, found), expected)
    torch.testing.assert_close(divergence(found), distributions.kl_divergence(posterior, prior))
    z = found.latents
    expected = expected + prior.log_prob(z).sum(2) - posterior.log_prob(z).sum(2)
    torch.testing.assert_close(log_weights(images, found), expected)


def test_loss_is_the_mean_over_images_of_the_sum_over_pixels():
    model = network()
    images, classes = binary()
    torch.manual_seed(3)
    loss, count, terms = VariationalInference(model).loss((images, classes))
    torch.manual_seed(3)
    each = -log_likelihood(images, model(images))
    assert count == 12 and each.shape == (1, 12)
    assert terms["reconstruction"].item() == pytest.approx(each.sum().item() / 12)
    assert loss.item() == pytest.approx((terms["reconstruction"] + terms["kl"]).item())
    assert not any(term.requires_grad for term in terms.values())


def test_importance_weighted_bound_rises_with_k():
    torch.manual_seed(0)
    model = spread(network()).double()
    task = VariationalInference(model)
    images = binary(100)[0].double()
    with torch.no_grad():
        found = [model(images) for _ in range(200)]
        elbo = torch.stack([log_likelihood(images, f)[0] - divergence(f).sum(1) for f in found])
        bounds = [elbo.mean().item()]
        for k in (1, 2, 5, 50, 500):
            values = [task.importance_weighted_bound(images, None, k) for _ in range(500 // k)]
            bounds.append(torch.stack(values).mean().item())
    assert bounds[1] == pytest.approx(bounds[0], abs=0.05)  # K = 1 is the same bound
    assert all(second > first + 0.02 for first, second in itertools.pairwise(bounds[1:]))


def test_bound_reaches_the_exact_likelihood_of_a_tiny_model():
    torch.manual_seed(0)
    model = spread(network(latent_dim=1)).double()
    task = VariationalInference(model)
    images = binary(5)[0].double()
    grid = torch.linspace(-8, 8, 4001, dtype=torch.double)
    with torch.no_grad():
        logits = model.decode(grid.unsqueeze(1))  # (4001, 1, 4, 4)
        pixels = distributions.Bernoulli(logits=logits.unsqueeze(0))
        joint = pixels.log_prob(images.unsqueeze(1)).sum((2, 3, 4))
        joint = joint + distributions.Normal(0.0, 1.0).log_prob(grid)
        exact = joint.logsumexp(1) + math.log(grid[1] - grid[0])
        bound = task.importance_weighted_bound(images, None, 50_000)
    assert (bound - exact).abs().max() < 0.02


def test_k_in_chunks_is_k_at_once(monkeypatch):
    model = spread(network()).double()
    task = VariationalInference(model)
    images, noise = binary(6)[0].double(), torch.randn(7, 6, 3).double()
    values = []
    for parts in ([7], [3, 3, 1]):
        draws = iter(noise.split(parts))
        monkeypatch.setattr(torch, "randn", lambda k, *a, draws=draws, **_: next(draws)[:k])
        monkeypatch.setattr("zoo.tasks.generative.variational.AT_ONCE", parts[0] * images.numel())
        with torch.no_grad():
            values.append(task.importance_weighted_bound(images, None, 7))
        assert next(draws, None) is None
    torch.testing.assert_close(*values)


def test_importance_weights_that_single_precision_cannot_hold_stay_finite():
    model = network()
    with torch.no_grad():
        model.decoder.output[-1].bias.fill_(300)
    task = VariationalInference(model, objective="iwae", samples=4)
    loss, _, _ = task.loss(binary())
    loss.backward()
    assert loss.isfinite() and loss > 1000
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_gradients_of_iwae_with_one_sample_are_the_elbos(monkeypatch):
    """In the mean over noise of -1 and 1, whose first two moments are the normal distribution's.

    Of a single draw they differ: one has the divergence in closed form, the other its estimate.
    """
    model = spread(network()).double()
    images = binary()[0].double()
    sums = {}
    for objective in ("elbo", "iwae"):
        task = VariationalInference(model, objective=objective)
        model.zero_grad()
        for signs in itertools.product((-1.0, 1.0), repeat=3):
            noise = torch.tensor(signs, dtype=torch.double).expand(1, 12, 3)
            monkeypatch.setattr(torch, "randn", lambda *a, noise=noise, **k: noise)
            task.loss((images, None))[0].backward()
        monkeypatch.undo()
        sums[objective] = [p.grad.clone() for p in model.parameters()]
    for ours, theirs in zip(*sums.values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
def test_linear_model_reaches_the_exact_likelihood_of_probabilistic_pca():
    """Lucas et al., 2019: the bound of the linear model has no other maximum than PPCA's."""
    from sklearn.decomposition import PCA

    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.normal(size=(9, 9)))[0][:3]
    data = random.normal(size=(500, 3)) * [3, 2, 1.2] @ axes
    data = data + 0.5 * random.normal(size=(500, 9)) + random.normal(size=9)
    exact = PCA(3).fit(data).score(data)
    images = torch.tensor(data).view(500, 1, 3, 3)
    torch.manual_seed(0)
    model = VariationalAutoencoder(3, 1, latent_dim=3, hidden_sizes=(), likelihood="gaussian")
    task = VariationalInference(model.double())
    task.prepare([images])
    steps = 1500
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-5)
    for _ in range(steps):
        optimizer.zero_grad()
        task.loss(images)[0].backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        elbo = -np.mean([task.loss(images)[0].item() for _ in range(50)])
        close = task.importance_weighted_bound(images, None, 100).mean().item()
    # In nats. scikit-learn divides variances by n - 1, so its likelihood is not quite the largest.
    assert elbo == pytest.approx(exact, abs=0.02)
    assert close == pytest.approx(exact, abs=0.02)
    noise = PCA(3).fit(data).noise_variance_
    assert model.output_log_variance.exp().item() == pytest.approx(noise, rel=0.05)


# ------------------------------------------------------------------------------ training


class Binary(DataModule):
    """30 binary images in batches of 8, the last of 6."""

    def setup(self, *, seed=0, device="cpu", part=(0, 1)):
        for number, (split, count) in enumerate((("train", 30), ("val", 10), ("test", 10))):
            self.loaders[split] = TensorLoader(
                binary(count, seed=number), batch_size=8, shuffle=split == "train", seed=seed
            )
        return self

    def facts(self):
        return {"image_size": 4, "in_channels": 1}


def trainer_of(task, **settings):
    return Trainer(
        task,
        Binary().setup(seed=2),
        make_optimizer(torch.optim.Adam, task.model, lr=0.01),
        settings=TrainerSettings(**{"device": "cpu", "epochs": 3, "log_every": 1, **settings}),
        seed=5,
    )


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_training_is_bit_for_bit_the_usual_loop(likelihood, tmp_path):
    model = network(likelihood=likelihood)
    by_hand = copy.deepcopy(model)
    folder = new_folder(tmp_path)
    fit(trainer_of(VariationalInference(model)), folder)

    trained = read(folder.path / "checkpoints" / "last.pt")["model"]
    data = Binary().setup(seed=2)
    images = torch.cat([batch[0] for batch in data.batches("train", 0)])
    mean = images.double().mean(0).float()
    start = mean.clamp(1e-3, 1 - 1e-3).logit() if likelihood == "bernoulli" else mean
    by_hand.decoder.output[-1].bias.data = start.flatten()
    optimizer = make_optimizer(torch.optim.Adam, by_hand, lr=0.01)
    torch.manual_seed(5)
    for epoch in range(3):
        for x, _ in data.batches("train", epoch):
            mu, log_variance = by_hand.encoder(x)
            z = mu + torch.exp(0.5 * log_variance) * torch.randn(1, len(x), 3)[0]
            output = by_hand.decoder(z)
            if likelihood == "bernoulli":
                reconstruction = F.binary_cross_entropy_with_logits(output, x, reduction="none")
            else:
                s = by_hand.output_log_variance
                squares = (x - output) ** 2 * torch.exp(-s)
                reconstruction = 0.5 * (squares + s + math.log(2 * math.pi))
            kl = 0.5 * (mu**2 + log_variance.exp() - 1 - log_variance)
            loss = reconstruction.sum((1, 2, 3)).mean() + kl.mean(0).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert differences(dict(trained), dict(by_hand.state_dict())) == []


@pytest.mark.parametrize(
    "options",
    [
        {"kl_warmup_steps": 7, "beta": 2.0, "free_bits": 0.1, "samples": 2},
        {"objective": "iwae", "samples": 3},
    ],
)
def test_a_run_killed_at_a_random_step_goes_on_bit_for_bit(options, tmp_path):
    def task():
        return VariationalInference(network(), importance_samples=3, **options)

    whole, killed = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    fit(trainer_of(task()), whole)
    step = int(np.random.default_rng().integers(1, 12))

    def stop(trainer):
        trainer.signals.stop = signal.SIGTERM

    with pytest.raises(Interrupted):
        fit(trainer_of(task()), killed, [At(step, stop)])
    torch.manual_seed(99)  # another process has other random states
    fit(trainer_of(task()), killed, resume=True)
    assert differences(read_rows(killed.path), read_rows(whole.path)) == [], step
    states = [without_timings(read(f.path / "checkpoints" / "last.pt")) for f in (killed, whole)]
    assert differences(*states) == [], step


def test_weight_of_the_divergence_rises_with_the_updates_and_is_kept():
    task = VariationalInference(network(), beta=3.0, kl_warmup_steps=4)
    weights = []
    for _ in range(6):
        weights.append(task.kl_weight)
        runs = [task.objectives(binary()) for _ in range(2)]  # two accumulated batches
        for run in runs:
            next(run)
        assert next(runs[0], None) is None
    assert weights == [0, 0.75, 1.5, 2.25, 3, 3]
    fresh = VariationalInference(network(), beta=3.0, kl_warmup_steps=4)
    task.steps = 2
    fresh.load_state_dict(task.state_dict())
    assert fresh.kl_weight == 1.5


def test_weight_and_free_bits_act_on_the_divergence_alone():
    model = spread(network())

    def loss(**options):
        torch.manual_seed(0)
        return VariationalInference(model, **options).loss(binary())[0].item()

    torch.manual_seed(0)
    kl = divergence(model(binary()[0])).mean(0)
    plain = loss()
    assert loss(beta=3.0) == pytest.approx(plain + 2 * kl.sum().item(), rel=1e-5)
    limit = kl.sort().values[1].item()  # of three, one is below it
    expected = plain - kl.sum().item() + kl.clamp_min(limit).sum().item()
    assert loss(free_bits=limit) == pytest.approx(expected, rel=1e-5)


def test_four_accumulated_batches_are_one_large_batch(monkeypatch):
    def gradients(batches):
        model = spread(network()).double()
        task = VariationalInference(model, beta=0.5)
        for batch in batches:
            loss, count, _ = task.loss(batch)
            (loss * count / 8).backward()
        return [p.grad for p in model.parameters()]

    images, noise = binary(8)[0].double(), torch.randn(1, 8, 3).double()
    draws = iter([noise, *noise.split([3, 1, 2, 2], dim=1)])
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(draws))
    one = gradients([(images,)])
    four = gradients([(part,) for part in images.split([3, 1, 2, 2])])
    for first, second in zip(one, four, strict=True):
        torch.testing.assert_close(first, second)


def test_metrics_are_bounds_whatever_the_weights_are():
    model = spread(network())
    values = []
    for options in ({}, {"beta": 9.0, "free_bits": 5.0}, {"objective": "iwae", "samples": 5}):
        task = VariationalInference(model, importance_samples=500, **options)
        torch.manual_seed(0)
        for size in (5, 2):
            task.evaluate(binary(size))
        values.append(task.compute())
    assert values[0] == values[1] == values[2]
    first = values[0]
    assert set(first) == {"negative_elbo", "reconstruction", "kl", "nll_k500"}
    assert first["negative_elbo"] == pytest.approx(first["reconstruction"] + first["kl"])
    assert first["nll_k500"] < first["negative_elbo"]
    directions = task.directions()
    assert directions["nll_k500"] == directions["negative_elbo"] == "min"
    assert "kl" not in directions
    assert (task.monitor, task.changeable) == ("negative_elbo", ("importance_samples",))


# ---------------------------------------------------------------------------------- data


def test_bernoulli_on_other_values_is_refused_by_name():
    task = VariationalInference(network())
    message = r"Bernoulli likelihood is of values from 0 to 1, .* -0.5 to 1: set data.scaling"
    images = torch.linspace(-0.5, 1, 16).view(1, 1, 4, 4)
    with pytest.raises(ValueError, match=message):
        task.prepare([(torch.zeros(1, 1, 4, 4), None), (images, None)])
    VariationalInference(network(likelihood="gaussian")).prepare([(images, None)])


def test_grey_pixels_warn_that_the_bound_is_none():
    task = VariationalInference(network())
    grey = torch.linspace(0, 1, 16).view(1, 1, 4, 4)
    with pytest.warns(UserWarning, match="a Bernoulli likelihood is none.*data.binarize=dynamic"):
        task.prepare([grey])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VariationalInference(network()).prepare([binary()])
        VariationalInference(network(likelihood="gaussian")).prepare([grey])


# ------------------------------------------------------------------------------- looking


def test_samples_latents_and_reconstructions_go_together():
    model = network()
    task = VariationalInference(model)
    assert isinstance(task, Decodes) and isinstance(task, Encodes)
    state = torch.get_rng_state()
    samples = task.sample(5, seed=1).samples
    assert torch.equal(samples, task.sample(5, seed=1).samples)
    assert not torch.equal(samples, task.sample(5).samples)
    assert torch.equal(torch.get_rng_state(), state) and model.training
    generator = torch.Generator().manual_seed(1)
    latents = task.draw_latents(5, generator)
    assert latents.shape == (5, 3)
    with torch.no_grad():
        assert torch.equal(task.decode(latents), samples)
        assert torch.equal(samples, model.decode(latents).sigmoid())
        images = binary()[0]
        assert torch.equal(task.latents(images), model(images).mean)
        assert torch.equal(task.reconstruct(images), task.decode(task.latents(images)))
        assert torch.equal(task.predict(binary()).samples, task.reconstruct(images))


def test_conditional_model_draws_and_reconstructs_each_class():
    model = network(num_classes=3)
    task = VariationalInference(model)
    images, classes = binary()
    with torch.no_grad():
        given = task.sample(6, classes=torch.tensor([0, 1, 2, 0, 1, 2])).samples
        assert torch.equal(given, task.sample(6).samples)  # the classes in turn
        ones = task.sample(6, classes=torch.ones(6, dtype=torch.long)).samples
        assert [torch.equal(a, b) for a, b in zip(given, ones, strict=True)] == [
            False, True, False, False, True, False
        ]  # fmt: skip
        latents = task.latents(images, classes)
        assert latents.shape == (12, 6)
        one_hot = F.one_hot(classes, 3)
        expected = model.decode(model.encode(images, one_hot)[0], one_hot).sigmoid()
        assert torch.equal(task.predict((images, classes)).samples, expected)
    with pytest.raises(ValueError, match=r"this model is conditional: .* its class, which is not"):
        task.reconstruct(images)
    with pytest.raises(ValueError, match="this model is not conditional"):
        VariationalInference(network()).sample(2, classes=torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("num_classes", [None, 3])
def test_what_there_is_to_look_at(num_classes):
    task = VariationalInference(network(num_classes=num_classes))
    tile = 64 + 2
    assert set(images_of(task)) == {"samples", "traversal"}
    task.evaluate(binary())
    with torch.no_grad():
        shown = images_of(task)
    samples = (8 * tile, 8 * tile) if num_classes is None else (8 * tile, 3 * tile)
    assert shown["samples"].shape == (3, *samples)
    assert shown["reconstructions"].shape == (3, 2 * tile, 8 * tile)
    assert shown["traversal"].shape == (3, 3 * tile, 8 * tile)
    # Inputs are above: binary images, enlarged sixteenfold.
    first = shown["reconstructions"][0, :64:16, :64:16]
    assert torch.equal(first, binary()[0][0, 0])
    task.reset()
    assert "reconstructions" not in images_of(task)


def test_many_latent_variables_are_not_moved_one_by_one():
    assert "traversal" not in images_of(VariationalInference(network(latent_dim=17)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "vae"}, "objective must be 'elbo' or 'iwae', not 'vae'"),
        ({"samples": 0}, "samples must be at least 1, not 0"),
        ({"beta": -1.0}, "beta must be at least 0, not -1.0"),
        ({"beta": math.nan}, "beta must be at least 0, not nan"),
        ({"kl_warmup_steps": -1}, "kl_warmup_steps must be at least 0, not -1"),
        ({"free_bits": math.inf}, "free_bits must be at least 0, not inf"),
        ({"importance_samples": -2}, "importance_samples must be at least 0, not -2"),
        (
            {"objective": "iwae", "beta": 4.0},
            "objective=iwae has no divergence to weigh: leave",
        ),
    ],
)
def test_nonsense_is_refused_with_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        VariationalInference(network(), **options)


def test_other_models_are_refused():
    with pytest.raises(TypeError, match=r"model must have encode, decode.*; Linear lacks encode"):
        VariationalInference(nn.Linear(2, 2))
