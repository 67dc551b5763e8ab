import copy
import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from tests.tasks.seen import images_of
from zoo.layers.noise_schedule import NoiseSchedule, linear_betas
from zoo.models.generative.flow_matching import VelocityMLP
from zoo.tasks.generative.denoising_diffusion import DenoisingDiffusion, binned_log_probability


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def mlp(features=2, **options):
    return VelocityMLP(features, hidden_sizes=(16,), **options)


class Pixels(nn.Module):
    """A model of tiny images, one number of which is learned."""

    def __init__(self, num_classes=None):
        super().__init__()
        self.sample_shape, self.num_classes = (1, 4, 4), num_classes
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, times, labels=None):
        shift = 0 if labels is None else labels.view(-1, 1, 1, 1)
        return self.scale * x + shift + times.view(-1, 1, 1, 1) / 1000


class Exact(nn.Module):
    """The best prediction of the noise in data that are normal and independent."""

    def __init__(self, mean, deviation, num_steps):
        super().__init__()
        self.sample_shape, self.schedule = (2,), NoiseSchedule(linear_betas(num_steps))
        self.mean, self.deviation = mean, deviation
        self.unused = nn.Parameter(torch.zeros((), dtype=torch.double))

    def variance(self, share):
        """Of the noisy data."""
        return self.deviation**2 * share + 1 - share

    def forward(self, x, times):
        share = self.schedule.share(times + 1, x)
        return (1 - share).sqrt() * (x - share.sqrt() * self.mean) / self.variance(share)


def points(count=32):
    return torch.rand(count, 2).mul(2).sub(1)


def test_training_is_algorithm_1_written_by_hand_bit_for_bit():
    model = mlp()
    by_hand = copy.deepcopy(model)
    data = [(points(), None) for _ in range(20)]

    task = DenoisingDiffusion(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    torch.manual_seed(3)
    for batch in data:
        loss, count = task.loss(batch)
        assert count == 32
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.double)
    alphas_bar = torch.cumprod(1 - betas, 0)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-2)
    torch.manual_seed(3)
    for x0, _ in data:
        t = torch.randint(0, 1000, (32,))
        noise = torch.randn(32, 2)
        signal, rest = alphas_bar[t].sqrt().float(), (1 - alphas_bar[t]).sqrt().float()
        x = signal[:, None] * x0 + rest[:, None] * noise
        loss = (by_hand(x, t) - noise).square().mean(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def gap(model, kind):
    """What the bound loses to the exact likelihood, where both ends of a step are normal."""
    share = model.schedule.alphas_bar
    at, before = share[1:], share[:-1]
    left = model.deviation**2 * (1 - at) / model.variance(at)  # the variance of x_0 given x_t
    alpha = at / before
    posterior = (1 - alpha) * (1 - before) / (1 - at)
    true = posterior + (before.sqrt() * (1 - alpha) / (1 - at)) ** 2 * left
    ours = 1 - alpha if kind == "beta" else posterior.clone()
    if kind == "posterior":
        ours[0] = posterior[1]
    last = share[-1]
    end = last * model.mean**2 + model.variance(last)  # of x_T, against a standard normal
    nats = ((ours / true).log() + true / ours - 1).sum() + end - 1 - model.variance(last).log()
    return nats.item() / 2


@pytest.mark.parametrize("kind", ["posterior", "beta"])
@pytest.mark.parametrize(
    ("mean", "deviation", "steps"), [(0.0, 1.0, 50), (0.3, 0.5, 50), (-0.5, 2.0, 150)]
)
def test_bound_of_the_exact_score_is_the_likelihood_of_normal_data_and_a_known_gap(
    mean, deviation, steps, kind
):
    model = Exact(mean, deviation, steps)
    task = DenoisingDiffusion(
        model, num_steps=steps, sampling_steps=5, variance=kind, clip=False, bound_samples=None
    )
    x0 = mean + deviation * torch.randn(10_000, 2, dtype=torch.double)
    task.evaluate(x0)
    likelihood = Normal(mean, deviation).log_prob(x0).sum(1).mean().item()
    found = task.compute()["negative_elbo"] + likelihood
    assert found == pytest.approx(2 * gap(model, kind), abs=0.1)


def test_bound_is_tight_for_standard_normal_data_and_beta_and_loses_little_for_others():
    assert gap(Exact(0.0, 1.0, 50), "beta") == pytest.approx(0, abs=1e-12)
    gaps = [gap(Exact(0.3, 0.5, steps), "beta") for steps in (30, 100, 1000)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.01  # nats a dimension, at a thousand steps


def test_samples_of_the_exact_score_are_normal_data():
    model = Exact(0.3, 0.5, 1000).double()
    for options in ({"sampling_steps": 200}, {"sampler": "ancestral", "sampling_steps": 500}):
        x = DenoisingDiffusion(model, clip=False, **options).sample(4000).samples
        torch.testing.assert_close(x.mean(0), torch.full_like(x[0], 0.3), rtol=0, atol=0.03)
        torch.testing.assert_close(x.std(0), torch.full_like(x[0], 0.5), rtol=0, atol=0.03)


def test_some_steps_estimate_the_bound_and_the_loss_of_all_without_bias():
    model = mlp().double()
    x0 = points(2000).double()
    values = []
    for samples in (None, 1, 4):
        task = DenoisingDiffusion(
            model, num_steps=40, sampling_steps=5, prediction="x0", bound_samples=samples
        )
        for seed in range(6):
            torch.manual_seed(seed)
            task.evaluate(x0)
        values.append(task.compute())
    for name in ("loss", "negative_elbo"):
        exact, *estimates = (v[name] for v in values)
        assert estimates == pytest.approx([exact, exact], rel=0.03)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("scale", [0.005, 0.1, 3.0])
def test_probabilities_of_all_bins_sum_to_one_and_are_those_of_the_distribution_function(
    levels, scale
):
    values = torch.linspace(-1, 1, levels, dtype=torch.double)
    scale = torch.tensor(scale, dtype=torch.double)
    for mean in torch.tensor([-1.3, 0.0, 0.71], dtype=torch.double):
        found = binned_log_probability(values, mean, scale, levels=levels)
        assert found.isfinite().all()
        assert found.exp().sum().item() == pytest.approx(1)
        edges = (values[1:] + values[:-1]) / 2
        below = torch.cat([torch.zeros(1), Normal(mean, scale).cdf(edges), torch.ones(1)])
        torch.testing.assert_close(found.exp(), below.diff(), rtol=1e-6, atol=1e-12)


def test_bins_far_away_have_finite_nats_in_single_precision():
    found = binned_log_probability(
        torch.tensor([1.0, -1.0]), torch.tensor([-1.0, 1.0]), torch.tensor(0.007), levels=2
    )
    # The tail of a normal distribution beyond z: -z^2 / 2 - log(z sqrt(2 pi)).
    z = 1 / 0.007
    assert found.tolist() == pytest.approx(
        [-(z**2) / 2 - math.log(z * math.sqrt(2 * math.pi))] * 2, rel=1e-4
    )


def test_last_step_of_binary_data_is_integrated_over_two_bins():
    task = DenoisingDiffusion(Pixels(), levels=2, num_steps=100)
    x0 = torch.randint(2, (5, 1, 4, 4)).float() * 2 - 1
    first = torch.ones(5, dtype=torch.int64)
    torch.manual_seed(1)
    _, nats = task.terms(x0, first, None)
    torch.manual_seed(1)
    noise = torch.randn_like(x0)
    x = task.schedule.diffuse(x0, first, noise)
    share = task.schedule.alphas_bar
    guess = ((x - (1 - share[1]).sqrt() * 0.5 * x) / share[1].sqrt()).clamp(-1, 1)
    alpha = share[2] / share[1]
    scale = ((1 - alpha) * (1 - share[1]) / (1 - share[2])).sqrt()
    chance = Normal(0.0, 1.0).cdf(x0 * guess / scale)  # that it is on the right side of 0
    torch.testing.assert_close(nats, -chance.log().flatten(1).sum(1).float())


def test_evaluation_depends_on_the_random_state_alone():
    task = DenoisingDiffusion(Pixels(), levels=None)
    x0 = torch.rand(6, 1, 4, 4) * 2 - 1
    values = []
    for seed in (5, 5, 6):
        task.reset()
        torch.manual_seed(seed)
        task.evaluate((x0, torch.zeros(6)))
        values.append(task.compute())
    assert values[0] == values[1] != values[2]
    assert task.directions() == {"loss": "min", "negative_elbo": "min"}


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_what_is_predicted_changes_the_loss_but_not_the_way_to_the_data(prediction):
    """A model that knows the only image there is predicts it perfectly, whatever it is asked."""
    x0 = torch.linspace(-1, 1, 16).view(1, 1, 4, 4).double()
    noising = NoiseSchedule(linear_betas(1000))

    class Knowing(Pixels):
        def forward(self, x, times):
            noise = noising.noise(x0, x, times + 1)
            return noising.target(prediction, x0.expand_as(x), noise, times + 1)

    task = DenoisingDiffusion(Knowing().double(), prediction=prediction, clip=False)
    batch = x0.expand(3, -1, -1, -1)
    assert task.loss(batch)[0].item() == pytest.approx(0, abs=1e-12)
    found = task.sample(3).samples
    torch.testing.assert_close(found, batch)


def conditional(**options):
    return DenoisingDiffusion(Pixels(num_classes=3), sampling_steps=10, **options)


def test_guidance_of_none_is_no_class_and_of_one_is_the_class():
    x, times = torch.randn(4, 1, 4, 4), torch.full((4,), 500)
    labels = torch.tensor([0, 1, 2, 0])
    model = Pixels(num_classes=3)
    nobody, given = (model(x, times, each) for each in (torch.full((4,), 3), labels))

    class Seen(Pixels):
        def forward(self, x, times, labels=None):
            return super().forward(x, times, torch.full((len(x),), 3) if labels is None else labels)

    for guidance, wanted in ((0, nobody), (1, given), (3.5, nobody + 3.5 * (given - nobody))):
        task = DenoisingDiffusion(Seen(num_classes=3), guidance=guidance)
        torch.testing.assert_close(task.guided(x, times, labels), wanted)
    assert torch.equal(task.guided(x, times, None), nobody)


def test_labels_are_left_out_as_often_as_asked():
    batch = torch.zeros(4000, 1, 4, 4), torch.randint(3, (4000,))
    assert torch.equal(conditional(label_dropout=0.0).training_labels(batch), batch[1])
    assert (conditional(label_dropout=1.0).training_labels(batch) == 3).all()
    labels = conditional(label_dropout=0.2).training_labels(batch)
    left_out = labels == 3
    assert left_out.float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert torch.equal(labels[~left_out], batch[1][~left_out])
    assert DenoisingDiffusion(Pixels()).training_labels(batch) is None


def test_samples_are_of_each_class_in_turn():
    seen = []

    class Seen(Pixels):
        def forward(self, x, times, labels=None):
            seen.append(labels)
            return torch.zeros_like(x)

    DenoisingDiffusion(Seen(num_classes=3), sampling_steps=2).sample(7)
    assert [labels.tolist() for labels in seen] == [[0, 1, 2, 0, 1, 2, 0]] * 2


def test_samples_are_repeatable_and_leave_random_state_and_mode_alone():
    for options in ({}, {"eta": 0.5}, {"sampler": "ancestral"}):
        task = DenoisingDiffusion(Pixels(), sampling_steps=7, **options)
        state = torch.get_rng_state()
        first, again = (task.sample(4).samples for _ in range(2))
        assert torch.equal(first, again)
        assert not torch.equal(first, task.sample(4, seed=1).samples)
        assert torch.equal(torch.get_rng_state(), state) and task.model.training


def test_decoded_noise_is_what_is_drawn_from_it():
    task = DenoisingDiffusion(Pixels(), sampling_steps=7)
    latents = task.draw_latents(3, torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert torch.equal(task.decode(latents), task.sample(3, seed=4).samples)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_samples_and_their_way_from_noise_are_shown(num_classes):
    task = DenoisingDiffusion(Pixels(num_classes), sampling_steps=10)
    images = images_of(task)
    assert set(images) == {"samples", "from_noise"}
    columns = num_classes or 8
    assert images["samples"].shape == (3, 8 * 66, columns * 66)
    assert images["from_noise"].shape == (3, 8 * 66, 9 * 66)
    assert all(x.min() >= 0 and x.max() <= 1 for x in images.values())
    assert images_of(DenoisingDiffusion(mlp())) == {}


def test_data_that_are_not_what_the_bound_is_about_are_refused():
    binary = torch.tensor([-1.0, 1.0]).repeat(8).view(1, 1, 4, 4)
    DenoisingDiffusion(Pixels(), levels=2).prepare([(binary, None)])
    DenoisingDiffusion(Pixels(), levels=256).prepare([torch.arange(256) / 127.5 - 1])
    DenoisingDiffusion(Pixels(), clip=False).prepare([9 * binary])
    with pytest.raises(ValueError, match=r"from -1 to 1, not from 0 to 1: set data.scaling=symm"):
        DenoisingDiffusion(Pixels()).prepare([(binary + 1) / 2])
    with pytest.raises(ValueError, match=r"not from -2\.5 to 2\.5"):
        DenoisingDiffusion(Pixels(), levels=2, clip=False).prepare([2.5 * binary])
    with pytest.raises(ValueError, match=r"task\.levels=2: training samples have other values"):
        DenoisingDiffusion(Pixels(), levels=2).prepare([torch.cat([binary, binary / 3])])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "square"}, "schedule must be 'linear' or 'cosine', not 'square'"),
        ({"prediction": "y"}, "prediction must be 'epsilon' or 'x0' or 'v', not 'y'"),
        ({"variance": "small"}, "variance must be 'posterior' or 'beta', not 'small'"),
        ({"sampler": "euler"}, "sampler must be 'ddim' or 'ancestral', not 'euler'"),
        ({"levels": 1}, "levels must be at least 2, not 1"),
        ({"bound_samples": 0}, "bound_samples must be at least 1, not 0"),
        ({"eta": 1.5}, "eta must be from 0 to 1, not 1.5"),
        ({"sampling_steps": 0}, "sampling_steps must be at least 1, not 0"),
        ({"sampling_steps": 2000}, "sampling_steps must be from 1 to 1000, not 2000"),
        ({"label_dropout": -1}, "label_dropout must be from 0 to 1, not -1"),
        ({"guidance": -1}, "guidance must be at least 0, not -1"),
        ({"guidance": 2}, "guidance=2 needs a model that knows classes"),
    ],
)
def test_bad_argument_is_refused_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        DenoisingDiffusion(Pixels(), **arguments)


def test_models_and_batches_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match="Linear lacks it"):
        DenoisingDiffusion(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"samples must be \(2,\), as the model's are, not \(3,\)"):
        DenoisingDiffusion(mlp()).loss(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="needs batches of samples and labels"):
        conditional().loss(torch.zeros(4, 1, 4, 4))
    with pytest.raises(ValueError, match=r"switch data\.mixup and data\.cutmix off"):
        conditional().loss((torch.zeros(4, 1, 4, 4), torch.zeros(4, 3)))


def test_setting_that_another_leaves_without_effect_is_named():
    assert DenoisingDiffusion.without_effect({"sampler": "ddim"}) == {}
    assert set(DenoisingDiffusion.without_effect({"sampler": "ancestral"})) == {"eta"}


@pytest.mark.parametrize("num_classes", [None, 3])
def test_samples_are_judged_beside_real_ones_and_leave_the_other_metrics_alone(num_classes):
    class Kept:
        updates = 0

        def update(self, real, generated, asked):
            self.seen = real, generated, asked

        def compute(self):
            return {}

    task = DenoisingDiffusion(Pixels(num_classes), sampling_steps=3)
    batch = torch.rand(5, 1, 4, 4), torch.tensor([2, 2, 1, 0, 0])
    torch.manual_seed(1)
    task.evaluate(batch)
    alone = task.compute()
    task.reset()
    kept = Kept()
    task.scores = kept
    torch.manual_seed(1)
    task.evaluate(batch)
    assert task.compute() == alone
    real, generated, asked = kept.seen
    assert torch.equal(real, batch[0]) and generated.shape == real.shape
    assert (asked is None) if num_classes is None else asked.tolist() == [0, 1, 2, 0, 1]
