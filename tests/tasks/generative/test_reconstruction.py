import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, kl_divergence
from torch.nn import functional as F

from tests.tasks.seen import images_of, vectors_of
from zoo.models.generative.autoencoder import (
    Autoencoder,
    ConvolutionalAutoencoder,
    TiedAutoencoder,
)
from zoo.tasks.generative.base import Encodes
from zoo.tasks.generative.reconstruction import Reconstruction, squared_errors
from zoo.tasks.generative.reconstruction_penalties import activity_kl, contraction, l1


def deep(**options):
    torch.manual_seed(0)
    return Autoencoder(8, 1, **{"hidden_sizes": (16,), "latent_dim": 4} | options)


def one_layer(**options):
    return deep(**{"hidden_sizes": (), "code": "sigmoid", "output": "linear"} | options)


def batches(count=5, size=12):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.rand(size, 1, 8, 8, generator=generator), torch.arange(size) % 10)
        for _ in range(count)
    ]


def train(task, data, *, lr=1e-2):
    """Consumes losses as a trainer does."""
    optimizer = torch.optim.Adam(task.model.parameters(), lr=lr)
    for batch in data:
        (objective,) = task.objectives(batch)
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()


def evaluated(task, data):
    task.reset()
    task.model.eval()
    with torch.no_grad():
        for batch in data:
            task.evaluate(batch)
    return task.compute()


# ------------------------------------------------------------------- the loss, and loops by hand


def test_losses_are_the_formulas_summed_over_pixels():
    model, (batch, _) = deep(), batches(2)
    x, output = batch[0].double(), model.double()(batch[0].double())
    loss, count = Reconstruction(model).loss((x, None))
    assert count == 12
    assert loss.item() == pytest.approx(((x - output) ** 2).sum().item() / 12)
    loss, _ = Reconstruction(model, loss="cross_entropy").loss(x)
    expected = -(x * output.log() + (1 - x) * (1 - output).log()).sum() / 12
    assert loss.item() == pytest.approx(expected.item())


def test_logistic_losses_stay_finite_where_a_logistic_function_rounds_to_one():
    model, x = deep(), torch.zeros(2, 1, 8, 8)
    nn.init.constant_(model.decoder[-1].bias, 200.0)
    loss, _ = Reconstruction(model, loss="cross_entropy").loss(x)
    loss.backward()
    assert loss.item() == pytest.approx(64 * 200, rel=0.05)
    assert model.decoder[-1].bias.grad.abs().min() > 0.9


@pytest.mark.parametrize("corruption", ["none", "masking", "gaussian"])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_training_is_bit_for_bit_the_loop_written_by_hand(loss, corruption):
    model = deep()
    by_hand = copy.deepcopy(model)
    torch.manual_seed(3)
    train(Reconstruction(model, loss=loss, corruption=corruption), batches(20))

    torch.manual_seed(3)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-2)
    for x, _ in batches(20):
        seen = x
        if corruption == "masking":
            seen = x * (torch.rand(12, 1, 8, 8) >= 0.3)
        elif corruption == "gaussian":
            seen = x + 0.3 * torch.randn(12, 1, 8, 8)
        logits = by_hand.decoder(by_hand.encoder(seen.flatten(1))).view(12, 1, 8, 8)
        if loss == "squared_error":
            value = (logits.sigmoid() - x).pow(2).flatten(1).sum(1).mean()
        else:
            error = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
            value = error.flatten(1).sum(1).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    for ours, theirs in zip(
        model.state_dict().values(), by_hand.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_lecture_recipe_of_the_contractive_autoencoder_written_by_hand():
    """Mean over pixels and 1e-4 are the sum over pixels and D times 1e-4."""
    model = one_layer()
    x = batches(1)[0][0]
    hidden, output = model.encoder[0], model.decoder[0]
    h = torch.sigmoid(hidden(x.flatten(1)))
    penalty = 1e-4 * ((h * (1 - h)) ** 2 * (hidden.weight**2).sum(1)).sum(1)
    expected = (((output(h) - x.flatten(1)) ** 2).mean(1) + penalty).mean()
    loss, _, terms = Reconstruction(model, contraction_weight=64 * 1e-4).loss(x)
    assert loss.item() == pytest.approx(64 * expected.item(), rel=1e-6)
    assert terms["contraction"].item() == pytest.approx(64 * penalty.mean().item(), rel=1e-6)
    assert not any(term.requires_grad for term in terms.values())


def test_terms_add_up_to_the_loss():
    task = Reconstruction(
        one_layer(),
        sparsity="l1",
        sparsity_weight=0.3,
        contraction_weight=0.2,
        loss="squared_error",
    )
    loss, _, terms = task.loss(batches(1)[0])
    assert set(terms) == {"reconstruction", "contraction", "sparsity"}
    assert sum(terms.values()).item() == pytest.approx(loss.item())


# ------------------------------------------------------------------------- principal components


def digits():
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)[0][:400] / 16


def test_linear_autoencoder_is_principal_component_analysis():
    """Trained on squared error, it reaches PCA's error and PCA's subspace."""
    from scipy.linalg import subspace_angles
    from sklearn.decomposition import PCA

    table = digits()
    pca = PCA(8).fit(table)
    best = ((table - pca.inverse_transform(pca.transform(table))) ** 2).sum(1).mean()
    torch.manual_seed(0)
    model = TiedAutoencoder(8, 1, latent_dim=8).double()
    task = Reconstruction(model)
    x = torch.from_numpy(table).view(-1, 1, 8, 8)
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=600,
        history_size=30,
        tolerance_grad=1e-9,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss, _ = task.loss(x)
        loss.backward()
        return loss

    optimizer.step(closure)
    error = evaluated(task, [x])["squared_error"]
    assert best * (1 - 1e-12) <= error <= best * (1 + 1e-6)
    weight = model.encoder[0].weight.detach().numpy()
    assert np.rad2deg(subspace_angles(weight.T, pca.components_.T)).max() < 0.1
    # Its rows are a basis of that space, and not the components themselves.
    cosines = np.abs(weight @ pca.components_.T) / np.linalg.norm(weight, axis=1, keepdims=True)
    assert cosines.max(1).min() < 0.9


# ------------------------------------------------------------------------------------- penalties


def jacobian_norms(model, x):
    """Squared Frobenius norms by torch's own Jacobian, image by image."""
    return torch.stack(
        [
            torch.autograd.functional.jacobian(model.encode, image[None]).square().sum()
            for image in x
        ]
    )


ENCODERS = {
    "formula": lambda: one_layer(),
    "formula_tied": lambda: TiedAutoencoder(8, 1, latent_dim=4, code="sigmoid"),
    "linear": lambda: TiedAutoencoder(8, 1, latent_dim=4),
    "deep": lambda: deep(),
    "deep_sigmoid": lambda: deep(code="sigmoid"),
    "convolutional": lambda: ConvolutionalAutoencoder(8, 1, hidden_channels=(3, 4), latent_dim=4),
}


@pytest.mark.parametrize("build", ENCODERS.values(), ids=ENCODERS)
def test_contraction_is_the_squared_norm_of_autograds_jacobian(build):
    torch.manual_seed(0)
    model = build().double()
    x = torch.rand(3, 1, 8, 8, dtype=torch.double)
    torch.testing.assert_close(contraction(model, x, model.encode(x)), jacobian_norms(model, x))


def test_contraction_has_one_value_and_gradient_by_formula_and_by_differentiation():
    model = one_layer().double()
    x = torch.rand(5, 1, 8, 8, dtype=torch.double)

    class Hidden(nn.Module):
        """Keeps its encoder to itself, so that no formula applies."""

        def __init__(self):
            super().__init__()
            self.inner = model

        def encode(self, images):
            return self.inner.encode(images)

    weight, bias = model.encoder[0].weight, model.encoder[0].bias
    values = [contraction(each, x, model.encode(x)) for each in (model, Hidden())]
    torch.testing.assert_close(*values)
    for parameter in (weight, bias):
        gradients = [torch.autograd.grad(v.sum(), parameter, retain_graph=True) for v in values]
        torch.testing.assert_close(*gradients)


def test_contraction_of_two_units_by_hand():
    model = TiedAutoencoder(2, 1, latent_dim=2, code="sigmoid")
    with torch.no_grad():
        model.encoder[0].weight.copy_(torch.tensor([[1.0, 2.0, 0, 0], [3.0, -1.0, 0, 0]]))
        model.encoder[0].bias.zero_()
    x = torch.zeros(1, 1, 2, 2)  # each unit is at 1/2, its slope at 1/4
    assert contraction(model, x, model.encode(x)).item() == pytest.approx((5 + 10) / 16)


@pytest.mark.slow
def test_contraction_by_differentiation_also_trains_a_compiled_model():
    """What is compiled could not be differentiated twice; the penalty goes around it."""
    model = deep()
    gradients = []
    for is_compiled in (False, True):
        if is_compiled:
            model.compile(backend="aot_eager")
        model.zero_grad()
        loss, *_ = Reconstruction(model, contraction_weight=0.1).loss(batches(1)[0])
        loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for ours, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, compiled)


def test_contraction_is_taken_where_the_network_looks():
    model = deep()
    task = Reconstruction(model, corruption="gaussian", contraction_weight=1.0)
    x = batches(1)[0][0]
    torch.manual_seed(5)
    *_, terms = task.loss(x)
    torch.manual_seed(5)
    seen = x + 0.3 * torch.randn(x.shape)
    assert terms["contraction"].item() == pytest.approx(jacobian_norms(model, seen).mean().item())


def test_activity_penalty_is_torchs_divergence_of_bernoulli_variables():
    codes = torch.rand(50, 7, dtype=torch.double, requires_grad=True)
    expected = kl_divergence(Bernoulli(torch.tensor(0.05)), Bernoulli(codes.mean(0))).sum()
    ours = activity_kl(codes, 0.05)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=0)
    gradients = [torch.autograd.grad(value, codes, retain_graph=True) for value in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
    assert activity_kl(torch.full((4, 3), 0.25), 0.25).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_activity_penalty_of_units_that_never_change_is_finite(value):
    codes = torch.full((4, 3), value, requires_grad=True)
    penalty = activity_kl(codes, 0.05)
    penalty.backward()
    assert penalty.isfinite() and codes.grad.isfinite().all()


def test_l1_penalty_is_torchs_norm():
    codes = torch.randn(50, 7)
    torch.testing.assert_close(l1(codes), torch.linalg.vector_norm(codes, 1, dim=1).mean())


@pytest.mark.parametrize(("sparsity", "weight"), [("l1", 0.5), ("kl", 5.0)])
def test_penalty_makes_codes_sparser(sparsity, weight):
    activities = []
    for beta in (0.0, weight):
        model = one_layer(latent_dim=20)
        task = Reconstruction(model, sparsity=sparsity, sparsity_weight=beta)
        train(task, batches(5) * 40)
        activities.append(model.encode(batches(1)[0][0]).mean().item())
    assert activities[1] < 0.5 * activities[0]


# ------------------------------------------------------------------------------------ corruption


def test_masking_leaves_the_expected_share_of_pixels_and_changes_no_other():
    task = Reconstruction(deep(), corruption="masking", corruption_level=0.3)
    torch.manual_seed(0)
    x = torch.rand(500, 1, 8, 8) + 0.1
    seen = task.corrupt(x)
    kept = seen != 0
    assert torch.equal(seen[kept], x[kept])
    deviation = math.sqrt(0.3 * 0.7 / x.numel())
    assert kept.float().mean().item() == pytest.approx(0.7, abs=4 * deviation)
    rows = kept.flatten(1).float().mean(1)  # pixels of one image are masked independently
    assert rows.std().item() == pytest.approx(math.sqrt(0.3 * 0.7 / 64), rel=0.15)


def test_gaussian_noise_has_the_stated_deviation_and_no_mean():
    task = Reconstruction(deep(), corruption="gaussian", corruption_level=0.5)
    torch.manual_seed(0)
    x = torch.rand(500, 1, 8, 8)
    noise = task.corrupt(x) - x
    assert noise.std().item() == pytest.approx(0.5, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=4 * 0.5 / math.sqrt(x.numel()))


@pytest.mark.parametrize("corruption", ["masking", "gaussian"])
def test_evaluation_is_of_clean_inputs_and_draws_no_random_numbers(corruption):
    data, model = batches(), deep()
    clean = evaluated(Reconstruction(model), data)
    task = Reconstruction(model, corruption=corruption)
    state = torch.get_rng_state()
    assert evaluated(task, data) == clean
    task.anomaly_scores(data[0][0])
    with torch.no_grad():
        for image in images_of(task).values():
            assert image.shape[0] == 3
    assert torch.equal(torch.get_rng_state(), state)


# ------------------------------------------------------------------- evaluation, and what is shown


def test_metrics_are_means_over_images_of_uneven_batches():
    model = deep()
    data = [batches(1, size=size)[0] for size in (9, 4)]
    x = torch.cat([images for images, _ in data])
    found = evaluated(Reconstruction(model, loss="cross_entropy"), data)
    with torch.no_grad():
        error = squared_errors(x, model(x)).mean().item()
        nats = F.binary_cross_entropy(model(x), x, reduction="sum").item() / 13
    assert found == pytest.approx({"squared_error": error, "cross_entropy": nats}, rel=1e-5)
    task = Reconstruction(model)
    assert (task.monitor, task.mode) == ("squared_error", "min")
    assert task.directions() == {"squared_error": "min"}
    assert list(evaluated(task, data)) == ["squared_error"]


def test_anomaly_scores_tell_what_the_network_has_not_seen():
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    strokes = torch.zeros(200, 1, 8, 8)
    columns = torch.randint(8, (200,), generator=generator)
    strokes[torch.arange(200), 0, :, columns] = 1.0
    task = Reconstruction(deep(hidden_sizes=(32,), latent_dim=6))
    train(task, [strokes[:150]] * 400)
    others = strokes[150:].transpose(2, 3)  # lying, not standing
    scores = task.anomaly_scores(torch.cat([strokes[150:], others]))
    assert scores.shape == (100,)
    assert roc_auc_score([0] * 50 + [1] * 50, scores.numpy()) > 0.99
    table = task.predict(others[:3]).rows
    assert [row["squared_error"] for row in table] == pytest.approx(scores[50:53].tolist())


def test_images_with_the_largest_errors_of_all_batches_are_shown():
    model, data = deep(), batches(4)
    task = Reconstruction(model)
    evaluated(task, data)
    x = torch.cat([images for images, _ in data])
    with torch.no_grad():
        order = squared_errors(x, model(x)).argsort(descending=True)[:16]
    scores, images, reconstructions = task._worst
    assert torch.equal(images, x[order])
    torch.testing.assert_close(scores, task.anomaly_scores(x[order]))
    torch.testing.assert_close(reconstructions, task.reconstruct(x[order]))


def test_what_is_shown_is_two_rows_of_images_and_labelled_codes():
    task = Reconstruction(deep(), corruption="masking")
    assert task.show() == {}
    data = batches(2)
    evaluated(task, data)
    with torch.inference_mode():
        images, vectors = images_of(task), vectors_of(task)["codes"]
        again = images_of(task)
    assert set(images) == {"reconstructions", "denoised", "anomalies"}
    # The first batch has twelve images; the anomalies are sixteen of the 24.
    assert images["reconstructions"].shape == (3, 2 * 66, 12 * 66)
    assert images["anomalies"].shape == (3, 2 * 66, 16 * 66)
    assert all(torch.equal(images[name], again[name]) for name in images)
    assert vectors.labels == [str(i % 10) for i in (*range(12), *range(12))]
    torch.testing.assert_close(vectors.vectors[:12], task.latents(data[0][0]))
    task.reset()
    assert task.show() == {}
    evaluated(task, [images for images, _ in data])
    assert vectors_of(task)["codes"].labels[:3] == ["0", "1", "2"]


def test_codes_that_are_kept_are_bounded():
    task = Reconstruction(deep())
    evaluated(task, batches(9, size=150))
    assert vectors_of(task)["codes"].vectors.shape == (1_000, 4)


def test_reconstruction_is_the_decoded_latents_and_leaves_modes_alone():
    task = Reconstruction(deep())
    x = batches(1)[0][0]
    assert isinstance(task, Encodes)
    assert torch.equal(task.decode(task.latents(x)), task.reconstruct(x))
    assert not task.reconstruct(x).requires_grad
    assert task.model.training


def test_task_overfits_a_handful_of_images():
    task = Reconstruction(deep(hidden_sizes=(64,), latent_dim=8), loss="cross_entropy")
    x = (batches(1, size=4)[0][0] > 0.5).float()
    train(task, [x] * 500)
    assert evaluated(task, [x])["squared_error"] < 0.01


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "nll"}, "loss must be 'squared_error' or 'cross_entropy', not 'nll'"),
        ({"corruption": "blur"}, "corruption must be 'none', 'masking' or 'gaussian', not 'blur'"),
        ({"sparsity": "l2"}, "sparsity must be 'none', 'l1' or 'kl', not 'l2'"),
        (
            {"corruption": "masking", "corruption_level": 1.0},
            r"corruption_level must be in \[0, 1\)",
        ),
        ({"corruption_level": -0.1}, "corruption_level must be at least 0, not -0.1"),
        ({"sparsity_weight": -1.0}, "sparsity_weight must be at least 0, not -1.0"),
        ({"contraction_weight": -1.0}, "contraction_weight must be at least 0, not -1.0"),
        ({"target_activity": 0.0}, r"target_activity must be in \(0, 1\), not 0.0"),
        ({"sparsity": "kl"}, "set the model's code to 'sigmoid', not 'linear'"),
    ],
)
def test_bad_argument_is_refused_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        Reconstruction(deep(), **arguments)


def test_arguments_that_others_leave_without_effect_are_named():
    idle = Reconstruction.without_effect({"corruption": "none", "sparsity": "l1"})
    assert set(idle) == {"corruption_level", "target_activity"}
    idle = Reconstruction.without_effect({"corruption": "gaussian", "sparsity": "none"})
    assert set(idle) == {"sparsity_weight", "target_activity"}


def test_cross_entropy_of_linear_output_units_is_refused():
    with pytest.raises(ValueError, match="set the model's output to 'sigmoid', not 'linear'"):
        Reconstruction(deep(output="linear"), loss="cross_entropy")


def test_model_that_is_no_autoencoder_is_refused():
    with pytest.raises(TypeError, match="Linear lacks encode, decode, code, output"):
        Reconstruction(nn.Linear(2, 2))


def test_values_that_logistic_units_cannot_give_are_refused():
    x = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"data's are from -1 to 1: set data\.scaling=unit"):
        Reconstruction(deep()).prepare([(x, None)])
    Reconstruction(deep(output="linear")).prepare([(x, None)])
    Reconstruction(deep()).prepare([(x.abs(), None)])


# ------------------------------------------------------------------------------ with a classifier


def test_joint_loss_adds_the_cross_entropy_of_the_images_that_have_a_label():
    task = Reconstruction(deep(num_classes=10), classification_weight=0.7)
    images, labels = batches(1)[0]
    labels = labels.clone()
    labels[:3] = -100
    (objective,) = task.objectives((images, labels))
    codes, _, reconstructions = task.model(images, return_parts=True)
    nats = F.cross_entropy(task.model.classifier(codes[3:]), labels[3:], reduction="sum") / 12
    expected = squared_errors(images, reconstructions).mean() + 0.7 * nats
    torch.testing.assert_close(objective.loss, expected)
    torch.testing.assert_close(objective.terms["classification"], 0.7 * nats.detach())


def test_a_code_that_is_learned_jointly_tells_classes():
    images = torch.eye(10).repeat(3, 1)  # of each class one image, at the same pixel
    images = F.pad(images, (0, 54)).view(30, 1, 8, 8)
    data = [(images, torch.arange(30) % 10)]
    task = Reconstruction(deep(num_classes=10), classification_weight=1.0)
    before = evaluated(task, data)["accuracy"]
    train(task, data * 200)
    assert before < 0.5 and evaluated(task, data)["accuracy"] == 1


def test_a_joint_loss_needs_a_classifier_and_labels():
    with pytest.raises(ValueError, match=r"classification_weight=1.0 needs .* model.num_classes"):
        Reconstruction(deep(), classification_weight=1.0)
    task = Reconstruction(deep(num_classes=10), classification_weight=1.0)
    with pytest.raises(ValueError, match="batches of images and labels"):
        list(task.objectives(batches(1)[0][0]))
