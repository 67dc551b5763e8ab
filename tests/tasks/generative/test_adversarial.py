import copy
import io
import math

import pytest
import torch
from torch import nn

from tests.tasks.seen import images_of
from zoo.tasks.generative.adversarial import Adversarial
from zoo.tasks.generative.base import Decodes


class Pair(nn.Module):
    def __init__(self, generator, discriminator, latent_dim):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.latent_dim = latent_dim


def pair(seed=0):
    torch.manual_seed(seed)
    return Pair(
        # A bias before the batch normalisation has no gradient but rounding, which Adam blows up.
        nn.Sequential(nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(8, 1)),
        latent_dim=3,
    )


def image_pair(side=8):
    torch.manual_seed(0)
    return Pair(
        nn.Sequential(nn.Linear(3, side * side), nn.Tanh(), nn.Unflatten(1, (1, side, side))),
        nn.Sequential(nn.Flatten(), nn.Linear(side * side, 1)),
        latent_dim=3,
    )


def optimizers_of(model):
    return {
        "generator": torch.optim.Adam(model.generator.parameters(), lr=1e-2, betas=(0.5, 0.999)),
        "discriminator": torch.optim.SGD(model.discriminator.parameters(), lr=1e-1),
    }


def train(task, optimizers, batches):
    """Consumes objectives as a trainer does."""
    for batch in batches:
        for objective in task.objectives(batch):
            optimizer = optimizers[objective.network]
            optimizer.zero_grad()
            parameters = list(task.networks()[objective.network].parameters())
            objective.loss.backward(inputs=parameters)
            optimizer.step()
            task.after_update(objective.network)


def algorithm_1(model, optimizers, batches, *, k, is_minimax):
    """The loop of the paper, written out with sigmoids and logarithms."""
    generator, discriminator = model.generator, model.discriminator
    for start in range(0, len(batches), k):
        for real, _ in batches[start : start + k]:
            z = torch.randn(len(real), 3, dtype=real.dtype)
            fake = generator(z).detach()
            d_real, d_fake = discriminator(real).sigmoid(), discriminator(fake).sigmoid()
            value = d_real.log().mean() + (1 - d_fake).log().mean()
            optimizers["discriminator"].zero_grad()
            (-value).backward()
            optimizers["discriminator"].step()
        z = torch.randn(len(real), 3, dtype=real.dtype)
        d_fake = discriminator(generator(z)).sigmoid()
        loss = (1 - d_fake).log().mean() if is_minimax else -d_fake.log().mean()
        optimizers["generator"].zero_grad()
        loss.backward()
        optimizers["generator"].step()


def batches(count=5, size=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 2, generator=generator, dtype=dtype) * 0.5 + 2, torch.zeros(size))
        for _ in range(count)
    ]


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("loss", ["non_saturating", "minimax"])
def test_training_is_algorithm_1_written_by_hand(k, loss):
    model = pair().double()
    by_hand = copy.deepcopy(model)
    data = batches(20, dtype=torch.double)
    torch.manual_seed(3)
    task = Adversarial(model, loss=loss, generator_every=k)
    train(task, optimizers_of(model), data)
    torch.manual_seed(3)
    algorithm_1(by_hand, optimizers_of(by_hand), data, k=k, is_minimax=loss == "minimax")
    for (name, ours), theirs in zip(
        model.state_dict().items(), by_hand.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, msg=name)


def test_training_is_bit_for_bit_the_usual_loop_with_logits():
    model = pair()
    by_hand = copy.deepcopy(model)
    torch.manual_seed(3)
    train(Adversarial(model), optimizers_of(model), batches(20))

    torch.manual_seed(3)
    criterion, optimizers = nn.BCEWithLogitsLoss(), optimizers_of(by_hand)
    for real, _ in batches(20):
        fake = by_hand.generator(torch.randn(8, 3))
        loss = criterion(by_hand.discriminator(real), torch.ones(8, 1))
        loss = loss + criterion(by_hand.discriminator(fake.detach()), torch.zeros(8, 1))
        by_hand.discriminator.zero_grad()
        loss.backward()
        optimizers["discriminator"].step()
        fake = by_hand.generator(torch.randn(8, 3))
        loss = criterion(by_hand.discriminator(fake), torch.ones(8, 1))
        by_hand.generator.zero_grad()
        loss.backward()
        optimizers["generator"].step()
    for ours, theirs in zip(
        model.state_dict().values(), by_hand.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_objectives_come_in_the_order_of_the_algorithm_with_their_counts():
    task = Adversarial(pair())
    order = [(o.network, o.count) for o in task.objectives(batches(1)[0])]
    assert order == [("discriminator", 8), ("generator", 8)]
    assert set(task.networks()) == {"generator", "discriminator"}


def test_undecided_discriminator_costs_two_log_two_and_the_generator_log_two():
    model = pair()
    nn.init.zeros_(model.discriminator[-1].weight)
    nn.init.zeros_(model.discriminator[-1].bias)
    losses = [o.loss.item() for o in Adversarial(model).objectives(batches(1)[0])]
    assert losses == pytest.approx([2 * math.log(2), math.log(2)])
    losses = [o.loss.item() for o in Adversarial(model, loss="minimax").objectives(batches(1)[0])]
    assert losses == pytest.approx([2 * math.log(2), -math.log(2)])


@pytest.mark.parametrize("loss", ["non_saturating", "minimax"])
def test_losses_and_gradients_stay_finite_where_a_sigmoid_would_round_to_zero(loss):
    model = pair()
    for logit in (-200.0, 200.0):
        nn.init.constant_(model.discriminator[-1].bias, logit)
        for objective in Adversarial(model, loss=loss).objectives(batches(1)[0]):
            assert objective.loss.isfinite()


def test_rejected_generator_learns_from_the_non_saturating_loss_only():
    norms = []
    for loss in ("non_saturating", "minimax"):
        model = pair()
        nn.init.constant_(model.discriminator[-1].bias, -20.0)
        *_, objective = Adversarial(model, loss=loss).objectives(batches(1)[0])
        objective.loss.backward(inputs=list(model.generator.parameters()))
        norms.append(model.generator[-1].weight.grad.norm())
    assert norms[0] > 1e-3 and norms[1] < 1e-8


def test_discriminators_objective_leaves_the_generator_alone():
    task = Adversarial(pair())
    objective = next(task.objectives(batches(1)[0]))
    objective.loss.backward()
    assert all(p.grad is None for p in task.generator.parameters())
    assert all(p.grad is not None for p in task.discriminator.parameters())


def test_distance_falls_when_the_generator_meets_the_data():
    model = pair()
    task = Adversarial(model)
    assert (task.monitor, task.mode) == ("frechet_distance", "min")
    data = batches(10, size=50)
    task.prepare(data)
    model.eval()
    distances = []
    for generator in (model.generator, nn.Linear(3, 2)):
        model.generator = generator
        if isinstance(generator, nn.Linear):
            generator.weight.data = 0.5 * torch.eye(2, 3)
            generator.bias.data.fill_(2.0)
        task.reset()
        for batch in data:
            task.evaluate(batch)
        distances.append(task.compute()["frechet_distance"])
        # That of real samples depends on no generator, and is as near to 0 as chance lets it be.
        assert 0 < task.compute()["real_frechet_distance"] < 0.05
    assert distances[1] < 0.05 < 1 < distances[0]


def test_evaluation_reports_the_losses_as_means_over_samples():
    model = pair().eval()
    task = Adversarial(model)
    data = [batches(1, size=size)[0] for size in (8, 3)]
    task.prepare(data)
    torch.manual_seed(0)
    for batch in data:
        task.evaluate(batch)
    torch.manual_seed(0)
    total = 0.0
    for real, _ in data:
        fake = model.generator(torch.randn(len(real), 3))
        total += task.generator_loss(fake).item() * len(real)
    assert task.compute()["generator_loss"] == pytest.approx(total / 11)
    names = {"frechet_distance", "real_frechet_distance", "discriminator_loss", "generator_loss"}
    assert set(task.compute()) == names


def test_state_carries_the_components_so_that_evaluation_needs_no_training_data():
    data = batches()
    task, fresh = Adversarial(pair().eval()), Adversarial(pair().eval())
    with pytest.raises(RuntimeError, match="call prepare"):
        fresh.evaluate(data[0])
    fresh.load_state_dict(fresh.state_dict())
    task.prepare(data)
    file = io.BytesIO()
    torch.save(task.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    values = []
    for each in (task, fresh):
        each.reset()
        torch.manual_seed(0)
        each.evaluate(data[0])
        values.append(each.compute())
    assert values[0] == values[1]


def test_preparation_draws_no_random_numbers():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    task = Adversarial(image_pair())
    state = torch.get_rng_state()
    task.prepare([torch.linspace(0, 1, 320).view(5, 1, 8, 8)])
    assert torch.equal(torch.get_rng_state(), state) and expected.shape == (3,)


def test_samples_are_a_repeatable_grid_and_leave_random_state_and_modes_alone():
    model = image_pair()
    task = Adversarial(model)
    state = torch.get_rng_state()
    with torch.inference_mode():
        image = images_of(task)["samples"]
    assert image.shape == (3, 528, 528) and image.min() == 0 and image.max() == 1
    assert torch.equal(image, images_of(task)["samples"])
    assert torch.equal(torch.get_rng_state(), state)
    assert model.generator.training
    assert not torch.equal(task.sample(4).samples, task.sample(4, seed=1).samples)


def test_samples_that_are_not_images_are_not_shown():
    assert images_of(Adversarial(pair())) == {}


def test_prediction_is_what_the_generator_makes_of_noise():
    model = pair().eval()
    z = torch.randn(4, 3)
    assert torch.equal(Adversarial(model).predict(z).samples, model.generator(z))


def test_networks_wrapped_after_the_task_was_built_are_the_ones_used():
    model = pair()
    task = Adversarial(model)
    model.generator = nn.Sequential(model.generator)
    assert task.networks()["generator"] is model.generator


@pytest.mark.slow
def test_generator_learns_a_point_by_heart():
    model = Pair(
        nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)), latent_dim=2
    )
    torch.manual_seed(0)
    for part in (model.generator, model.discriminator[0], model.discriminator[2]):
        part.reset_parameters()
    point = torch.tensor([0.5, -0.5]).expand(32, 2)
    optimizers = {
        name: torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.5, 0.9))
        for name, network in Adversarial(model).networks().items()
    }
    train(Adversarial(model), optimizers, [(point, None)] * 600)
    with torch.no_grad():
        distance = (model.generator(torch.randn(256, 2)) - point[0]).norm(dim=1).mean()
    assert distance < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "square"}, "loss must be one of non_saturating, .*, wasserstein, not 'square'"),
        ({"generator_every": 0}, "generator_every must be at least 1, not 0"),
        ({"gradient_penalty": -1.0}, "gradient_penalty must be at least 0, not -1.0"),
        ({"weight_clip": 0.0}, "weight_clip must be greater than 0, not 0.0"),
        ({"loss": "wasserstein"}, "needs a critic with a bounded slope: set gradient_penalty=10"),
        (
            {"weight_clip": 0.1, "gradient_penalty": 1.0},
            "weight_clip=0.1 and gradient_penalty=1.0 bound the same slope; choose one",
        ),
        ({"num_components": 0}, "num_components must be at least 1, not 0"),
    ],
)
def test_bad_argument_is_refused_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adversarial(pair(), **arguments)


def test_model_without_two_networks_is_refused():
    with pytest.raises(TypeError, match=r"Linear lacks generator, discriminator, latent_dim"):
        Adversarial(nn.Linear(2, 2))


def test_generator_of_another_shape_than_the_data_is_refused():
    task = Adversarial(pair())
    with pytest.raises(ValueError, match=r"real ones' shape \(4, 5\), not \(4, 2\)"):
        next(task.objectives(torch.zeros(4, 5)))


class ConditionalPair(nn.Module):
    """Networks that return what they were told, so that it can be looked at."""

    num_classes, latent_dim = 3, 2

    def __init__(self):
        super().__init__()
        self.generator, self.discriminator = Told(5, 4), Told(7, 1)

    def forward(self, latents, classes):
        return self.generator(latents, classes)


class Told(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear, self.classes = nn.Linear(in_features, out_features), []

    def forward(self, x, classes):
        self.classes.append(classes)
        return self.linear(torch.cat([x, classes], dim=1))


def test_both_networks_of_a_conditional_model_are_told_the_classes_of_the_batch():
    model = ConditionalPair()
    task = Adversarial(model, gradient_penalty=1.0)
    labels = torch.tensor([2, 0, 1, 1])
    losses = [o.loss.isfinite() for o in task.objectives((torch.randn(4, 4), labels))]
    assert all(losses) and len(losses) == 2
    told = [*model.generator.classes, *model.discriminator.classes]
    assert len(told) == 2 + 4  # real, generated, between; generated
    assert all(torch.equal(classes, torch.eye(3)[labels]) for classes in told)


def test_samples_of_a_conditional_model_have_each_class_in_turn():
    model = ConditionalPair()
    task = Adversarial(model)
    assert task.sample(7).samples.shape == (7, 4)
    (classes,) = model.generator.classes
    assert torch.equal(classes, torch.eye(3)[torch.arange(7) % 3])


def test_samples_are_what_the_generator_decodes_of_latent_variables():
    model = pair().eval()
    task = Adversarial(model)
    assert isinstance(task, Decodes)
    latents = task.draw_latents(4, torch.Generator().manual_seed(5))
    assert torch.equal(latents, torch.randn(4, 3, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(task.sample(4, seed=5).samples, model.generator(latents))


@pytest.mark.parametrize("loss", ["least_squares", "hinge"])
def test_other_losses_are_what_their_papers_minimise(loss):
    task, (real, _) = Adversarial(pair().eval(), loss=loss), batches(1)[0]
    torch.manual_seed(0)
    found = [o.loss for o in task.objectives((real, None))]
    torch.manual_seed(0)
    d, g = task.discriminator, task.generator
    real_score, fake_score, last = d(real), d(g(torch.randn(8, 3))), d(g(torch.randn(8, 3)))
    if loss == "hinge":
        expected = (1 - real_score).clamp(min=0).mean() + (1 + fake_score).clamp(min=0).mean()
        expected = expected, -last.mean()
    else:
        expected = 0.5 * (real_score - 1).pow(2).mean() + 0.5 * fake_score.pow(2).mean()
        expected = expected, 0.5 * (last - 1).pow(2).mean()
    for pair_ in zip(found, expected, strict=True):
        torch.testing.assert_close(*pair_)


def test_batch_normalisation_under_a_gradient_penalty_is_refused_by_name():
    model = pair()
    model.discriminator = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(ValueError, match=r"discriminator\.1 is a BatchNorm1d: build the model"):
        Adversarial(model, gradient_penalty=10.0)


def test_spectral_normalisation_bounds_a_critic_enough():
    model = pair()
    for layer in model.discriminator:
        if isinstance(layer, nn.Linear):
            nn.utils.parametrizations.spectral_norm(layer)
    assert len(list(Adversarial(model, loss="wasserstein").objectives(batches(1)[0]))) == 2


def test_run_of_a_version_with_several_steps_a_batch_is_evaluated_but_not_trained():
    task, data = Adversarial(pair(), generator_every=2), batches()
    task.prepare(data)
    old = {"components": task.components.state_dict()}
    task.load_state_dict(old)
    task.model.eval()
    task.evaluate(data[0])
    with pytest.raises(RuntimeError, match="must be started anew to train, with generator_every=2"):
        next(task.objectives(data[0]))
    usual = Adversarial(pair())  # one step a batch is what it was
    usual.load_state_dict(old)
    assert len(list(usual.objectives(data[0]))) == 2


class Scores:
    """What would judge samples by a classifier's features: it keeps what it is given."""

    def __init__(self):
        self.seen = []

    def update(self, *given):
        self.seen.append(given)


@pytest.mark.parametrize("is_conditional", [True, False])
def test_the_features_of_a_classifier_judge_the_very_samples_of_the_other_metrics(is_conditional):
    task, scores = Adversarial(ConditionalPair() if is_conditional else pair().eval()), Scores()
    real, labels = torch.randn(6, 4 if is_conditional else 2), torch.arange(6) % 3
    task.prepare([(real, labels)])
    task.judge_by(scores)
    compared = []
    task.compare = lambda *samples: compared.extend(samples)
    task.evaluate((real, labels))
    ((seen, generated, asked),) = scores.seen
    assert seen is real and generated is compared[1]
    assert asked is (labels if is_conditional else None)
