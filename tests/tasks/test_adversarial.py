import copy
import io
import math

import pytest
import torch
from torch import nn

from tests.tasks.seen import images_of
from zoo.tasks.adversarial import Adversarial


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
    assert set(task.compute()) == {"frechet_distance", "discriminator_loss", "generator_loss"}


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
