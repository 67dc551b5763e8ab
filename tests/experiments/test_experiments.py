import json
from pathlib import Path

import numpy as np
import pytest
import torch

from train import train
from zoo.app.main import main
from zoo.data.images.digits import Digits
from zoo.data.sequences.sunspots import Sunspots
from zoo.data.tabular.diabetes import Diabetes
from zoo.training.checkpoints.checkpoint import read

QUIET = ["logger.console=off", "logger.tensorboard=false"]


def run(tmp_path: Path, *words: str) -> Path:
    assert main(train, [*words, *QUIET, f"paths.runs_dir={tmp_path}"]) == 0
    (folder,) = tmp_path.glob("*/*")
    return folder


def closed_form(weight_decay: float) -> tuple[np.ndarray, float]:
    """Least squares with the squared norm of the weights, not of the bias, penalised."""
    data = Diabetes()
    data.setup()
    ((inputs, targets),) = data.batches("train", 0)
    x, y = inputs.double().numpy(), targets.double().numpy()
    n = len(x)
    mean_x, mean_y = x.mean(0), y.mean()
    centred = x - mean_x
    alpha = n * weight_decay / 2
    gram = centred.T @ centred + alpha * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (y - mean_y))[:, 0]
    return weights, float(mean_y - mean_x @ weights)


@pytest.mark.parametrize("weight_decay", [0.0, 0.02, 1.0])
def test_linear_diabetes_ends_at_the_closed_form_solution(tmp_path, weight_decay):
    folder = run(tmp_path, "experiment=linear_diabetes", f"optimizer.weight_decay={weight_decay}")
    model = read(folder / "checkpoints" / "last.pt")["model"]
    weights, bias = closed_form(weight_decay)
    found = model["linear.weight"][0].double().numpy()
    assert np.abs(found - weights).max() <= 1e-4 * np.abs(weights).max()
    assert abs(model["linear.bias"].item() - bias) <= 1e-4 * np.abs(weights).max()


def test_lbfgs_diabetes_is_there_in_twenty_steps(tmp_path):
    folder = run(tmp_path, "experiment=lbfgs_diabetes")
    state = read(folder / "checkpoints" / "last.pt")
    weights, bias = closed_form(0.0)
    assert state["position"]["step"] == 20
    assert np.abs(state["model"]["linear.weight"][0].double().numpy() - weights).max() <= 5e-6
    assert abs(state["model"]["linear.bias"].item() - bias) <= 5e-6


def test_lasso_diabetes_has_the_coefficients_of_scikit_learn_zeros_included(tmp_path):
    from sklearn.linear_model import Lasso

    folder = run(tmp_path, "experiment=lasso_diabetes")
    model = read(folder / "checkpoints" / "last.pt")["model"]
    data = Diabetes()
    data.setup()
    ((inputs, targets),) = data.batches("train", 0)
    lasso = Lasso(alpha=0.05, tol=1e-9).fit(inputs.double().numpy(), targets.double().numpy())
    found = model["linear.weight"][0].double().numpy()
    np.testing.assert_allclose(found, lasso.coef_, atol=1e-5)
    assert 0 < (found == 0).sum() < 10
    assert ((found == 0) == (lasso.coef_ == 0)).all()


def test_ridge_is_scikit_learns_with_alpha_n_lambda_over_two():
    from sklearn.linear_model import Ridge

    data = Diabetes()
    data.setup()
    ((inputs, targets),) = data.batches("train", 0)
    ridge = Ridge(alpha=len(inputs) * 0.02 / 2).fit(inputs.numpy(), targets.numpy()[:, 0])
    np.testing.assert_allclose(ridge.coef_, closed_form(0.02)[0], rtol=1e-4, atol=1e-6)


def test_linear_forecast_of_sunspots_ends_at_least_squares(tmp_path):
    from sklearn.linear_model import LinearRegression

    words = ["model=linear_regression", "data.flatten=true", "data.batch_size=null"]
    words += ["optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.95", "schedule=constant"]
    words += ["trainer.epochs=1500", "trainer.evaluate_every=1500", "trainer.clip_norm=null"]
    folder = run(tmp_path, "experiment=forecast_sunspots", *words)
    data = Sunspots(flatten=True, batch_size=None)
    data.setup()
    (x, y), (test_x, test_y) = (next(iter(data.batches(split, 0))) for split in ("train", "test"))
    fit = LinearRegression().fit(x.double().numpy(), y[:, 0].double().numpy())
    model = read(folder / "checkpoints" / "last.pt")["model"]
    np.testing.assert_allclose(model["linear.weight"][0], fit.coef_, atol=2e-3)
    assert model["linear.bias"].item() == pytest.approx(fit.intercept_, abs=2e-3)
    error = np.square(fit.predict(test_x.numpy()) - test_y[:, 0].numpy()).mean()
    found = json.loads((folder / "results.json").read_text())["test"]["loss"]
    assert found == pytest.approx(error, rel=5e-3)


@pytest.mark.slow
def test_lenet_digits_reaches_098(tmp_path):
    folder = run(tmp_path, "experiment=lenet_digits")
    assert json.loads((folder / "results.json").read_text())["test"]["accuracy"] >= 0.98


def test_gcn_karate_tells_the_two_sides_apart(tmp_path):
    folder = run(tmp_path, "experiment=gcn_karate")
    assert json.loads((folder / "results.json").read_text())["test"]["accuracy"] >= 0.9


def test_two_runs_in_one_process_equal_each_alone(tmp_path):
    words = ["experiment=lenet_digits", "trainer.epochs=1", "trainer.limit_train_batches=4"]

    def weights(seed: int, place: str) -> torch.Tensor:
        folder = run(tmp_path / place, *words, f"seed={seed}")
        return torch.cat(
            [t.flatten() for t in read(folder / "checkpoints/last.pt")["model"].values()]
        )

    first = weights(1, "a")
    weights(2, "b")
    assert torch.equal(first, weights(1, "c"))


@pytest.mark.data
def test_gcn_cora_reaches_the_papers_accuracy_on_average(tmp_path, monkeypatch):
    accuracies = []
    for seed in range(5):
        folder = run(tmp_path / str(seed), "experiment=gcn_cora", f"seed={seed}")
        accuracies.append(json.loads((folder / "results.json").read_text())["test"]["accuracy"])
    assert np.mean(accuracies) >= 0.805


@pytest.mark.slow
def test_linear_autoencoder_digits_ends_at_principal_component_analysis(tmp_path):
    from scipy.linalg import subspace_angles
    from sklearn.decomposition import PCA

    folder = run(tmp_path, "experiment=linear_autoencoder_digits")
    data = Digits(batch_size=2000, image_size=8, scaling="unit")
    data.setup()
    train, test = (
        next(iter(data.batches(split, 0)))[0].flatten(1).numpy() for split in ("train", "test")
    )
    pca = PCA(8).fit(train)
    error = ((test - pca.inverse_transform(pca.transform(test))) ** 2).sum(1).mean()
    found = json.loads((folder / "results.json").read_text())["test"]["squared_error"]
    assert found == pytest.approx(error, rel=1e-3)
    weight = read(folder / "checkpoints" / "last.pt")["model"]["encoder.0.weight"].numpy()
    assert np.rad2deg(subspace_angles(weight.T, pca.components_.T)).max() < 1


@pytest.mark.parametrize(
    ("words", "accuracy"),
    [([], 1.0), (["model=deep_multiset"], 0.5), (["data.pairs=cycles"], 0.5)],
    ids=["gin", "degrees", "cycles"],
)
def test_gin_wl_tells_what_messages_tell_and_no_more(words, accuracy, tmp_path):
    """The pairs lie side by side: to take both graphs of each for the same is right in half."""
    small = ["data.num_samples=400", "data.eval_samples=100", "trainer.epochs=8"]
    folder = run(tmp_path, "experiment=gin_wl", *small, *words)
    assert json.loads((folder / "results.json").read_text())["test"]["accuracy"] == accuracy


def test_logistic_breast_cancer_ends_at_scikit_learns_coefficients(tmp_path):
    from sklearn.linear_model import LogisticRegression

    from zoo.data.tabular.named_tables import NamedTable

    decay = 0.05  # quicker than that of the experiment
    words = ["trainer.epochs=1500", "trainer.evaluate_every=1500", "trainer.log_every=1500"]
    folder = run(
        tmp_path, "experiment=logistic_breast_cancer", f"optimizer.weight_decay={decay}", *words
    )
    model = read(folder / "checkpoints" / "last.pt")["model"]
    data = NamedTable("breast_cancer", batch_size=None)
    data.setup()
    ((inputs, targets),) = data.batches("train", 0)
    theirs = LogisticRegression(C=2 / (len(inputs) * decay), tol=1e-8, max_iter=10_000)
    theirs.fit(inputs.double().numpy(), targets.numpy())
    weights, biases = model["linear.weight"].double(), model["linear.bias"].double()
    np.testing.assert_allclose((weights[1] - weights[0]).numpy(), theirs.coef_[0], atol=1e-3)
    np.testing.assert_allclose((biases[1] - biases[0]).item(), theirs.intercept_[0], atol=1e-3)
