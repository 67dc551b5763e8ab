"""The program that fits scikit-learn's models to the data of a network."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, roc_auc_score

from zoo.app.train import main as train
from zoo.data.images.digits import Digits
from zoo.data.sequences.sunspots import Sunspots
from zoo.data.tabular.diabetes import Diabetes
from zoo.data.tabular.rare_class import RareClass
from zoo.data.tabular.table import TableFile
from zoo.data.text.labelled_text import LabelledText

ROOT = Path(__file__).parents[2]
DIGITS = ["data=digits", "data.image_size=8", "data.augment=false"]


@pytest.fixture(scope="module")
def program():
    path = ROOT / "scripts" / "baseline.py"
    spec = importlib.util.spec_from_file_location("baseline", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(path):
    with path.open() as file:
        return {
            row.pop("model"): {k: float(v) for k, v in row.items()} for row in csv.DictReader(file)
        }


def arrays(module):
    module.setup()
    found = {}
    for split in module.splits:
        ((x, y),) = module.batches(split, 0)
        found[split] = x.flatten(1).numpy(), y.numpy()
    return found


def test_figures_are_scikit_learns_own_of_the_same_samples(program, tmp_path, capsys):
    out = tmp_path / "digits.csv"
    words = [
        *DIGITS,
        "data.batch_size=2000",
        "fit=dummy,logistic,forest,knn",
        f"out={out}",
        "seed=3",
    ]
    assert program.main(words) == 0
    found = table(out)
    data = arrays(Digits(image_size=8, augment=False, batch_size=2000))
    for name, model in (
        ("logistic", LogisticRegression(max_iter=1_000)),
        ("forest", RandomForestClassifier(random_state=3)),
    ):
        model.fit(*data["train"])
        for split in ("val", "test"):
            expected = pytest.approx(model.score(*data[split]), abs=1e-6)
            assert found[name][f"{split}_accuracy"] == expected
    assert found["dummy"]["test_accuracy"] < 0.15 < 0.9 < found["logistic"]["test_accuracy"]
    printed = capsys.readouterr().out
    assert printed.startswith("1,258 train, 269 val, 270 test; 64 features a sample")
    best = max(found, key=lambda name: found[name]["val_accuracy"])
    assert printed.count(" * ") == 1 and f"| {best} * " in printed


def test_numbers_are_judged_by_the_metrics_of_a_regression(program, tmp_path):
    out = tmp_path / "diabetes.csv"
    assert program.main(["data=diabetes", "fit=ridge,boosting,svm", f"out={out}"]) == 0
    data = arrays(Diabetes())
    ridge = Ridge().fit(*data["train"])
    found = table(out)
    assert found["ridge"]["test_r2"] == pytest.approx(ridge.score(*data["test"]), abs=1e-5)
    assert all(row["test_r2"] > 0.4 for row in found.values())


def test_of_series_there_are_forecasts_that_are_not_fitted(program, tmp_path, capsys):
    out = tmp_path / "sunspots.csv"
    words = ["data=sunspots", "data.context=22", "data.horizon=11", "data.batch_size=null"]
    fit = "fit=naive,seasonal_naive,linear,ridge,forest,knn"
    assert program.main([*words, fit, f"out={out}"]) == 0
    found = table(out)
    data = arrays(Sunspots(context=22, horizon=11, batch_size=None))
    years, targets = data["test"]
    for name, forecast in (("naive", years[:, -1:]), ("seasonal_naive", years[:, -11:])):
        error = ((forecast - targets) ** 2).mean() ** 0.5
        assert found[name]["test_rmse"] == pytest.approx(error, abs=1e-5)
    ridge = Ridge().fit(*data["train"])
    assert found["ridge"]["val_r2"] == pytest.approx(ridge.score(*data["val"]), abs=1e-5)
    assert capsys.readouterr().out.startswith("184 train, 37 val, 36 test; 22 features a sample")
    assert program.main(["data=sunspots", "data.period=null", "fit=seasonal_naive"]) == 2
    assert "boosting, naive\n" in capsys.readouterr().err


def test_data_are_those_of_a_stored_run(program, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["experiment=linear_diabetes", "data.split_seed=4", "trainer.epochs=1"]
    assert train([*words, "logger=off"]) == 0
    (run,) = (tmp_path / "runs" / "linear_diabetes").iterdir()
    assert program.main([f"run={run}", "fit=linear", "out=a.csv"]) == 0
    assert program.main(["data=diabetes", "data.split_seed=4", "fit=linear", "out=b.csv"]) == 0
    assert program.main(["data=diabetes", "fit=linear", "out=c.csv"]) == 0
    rmse = [table(Path(f"{name}.csv"))["linear"]["test_rmse"] for name in "abc"]
    assert rmse[0] == rmse[1] != rmse[2]


def test_fewer_samples_are_the_first(program, capsys):
    assert program.main([*DIGITS, "fit=knn", "limit=100"]) == 0
    assert capsys.readouterr().out.startswith("100 train, 269 val, 270 test")


def test_texts_are_those_of_the_network_and_judged_as_scikit_learn_does(program, tmp_path, capsys):
    lines = [
        f"{'good' if n % 2 else 'bad'} {['film', 'play', 'book'][n % 3]} {n},{n % 2}"
        for n in range(60)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines, ""]))
    words = ["data=labelled_text", f"data.train={tmp_path / 't.csv'}", "data.num_folds=5"]
    out = tmp_path / "texts.csv"
    assert program.main([*words, "data.fold=2", f"out={out}"]) == 0
    found = table(out)
    data = LabelledText(train=str(tmp_path / "t.csv"), num_folds=5, fold=2)
    data.setup()
    splits = data.texts()
    features = TfidfVectorizer(ngram_range=(1, 2)).fit(splits["train"][0])
    x, y = ({split: part[i] for split, part in splits.items()} for i in (0, 1))
    model = LogisticRegression(max_iter=1_000).fit(features.transform(x["train"]), y["train"])
    for split in ("val", "test"):
        expected = pytest.approx(model.score(features.transform(x[split]), y[split]), abs=1e-6)
        assert found["logistic"][f"{split}_accuracy"] == expected
    assert set(found) == {"dummy", "logistic", "linear_svm", "naive_bayes"}
    assert found["dummy"]["test_accuracy"] == 0.5 < found["naive_bayes"]["test_accuracy"]
    assert capsys.readouterr().out.startswith("41 train, 7 val, 12 test\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=diabetes", "fit=logistic"], "fit=logistic: for numbers there are dummy, linear"),
        ([*DIGITS, "fit=ridge"], "fit=ridge: for classes there are dummy, logistic"),
        (["data=karate"], "KarateClub has other batches than features with a class or numbers"),
        (["run=nowhere"], "run=nowhere: there is no such folder"),
        (["data=diabetes", "limit=-1"], "limit=-1"),
        (["experiment=multi_task_penguins"], "data.target: these are of several kinds, "),
        (["data=diabetes", "fit=knn", "limit=3"], "fit=knn: knn cannot be fitted: "),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence(program, capsys, words, message):
    assert program.main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_models_of_a_run_are_kept_in_its_folder(program, tmp_path, capsys):
    words = ("experiment=lasso_diabetes", "trainer.epochs=2", "logger=off")
    assert train([*words, f"paths.runs_dir={tmp_path}", "-m", "seed=0,1"]) == 0
    (sweep,) = tmp_path.glob("*/*")
    assert program.main([f"run={sweep}", "fit=dummy"]) == 0
    assert not list(sweep.rglob("baselines.json"))  # not all models: nothing to choose the best of
    (first, *_) = sorted(sweep.glob("*/config.yaml"))
    assert program.main([f"run={first.parent}"]) == 0
    (kept,) = sweep.rglob("baselines.json")
    found = json.loads(kept.read_text())
    assert [row["model"] for row in found["models"]][:2] == ["dummy", "linear"]
    assert program.main([f"run={sweep}", f"out={tmp_path / 'x.csv'}"]) == 2
    assert "is for one run" in capsys.readouterr().err


def test_two_classes_are_ranked_by_the_area_under_the_curve(program, tmp_path, capsys):
    out = tmp_path / "rare.csv"
    words = ["data=rare_class", "data.num_samples=2000", "data.eval_samples=2000"]
    assert program.main([*words, "fit=dummy,logistic,linear_svm", f"out={out}"]) == 0
    found = table(out)
    data = RareClass(num_samples=2_000, eval_samples=2_000, batch_size=2_000)
    samples = arrays(data)
    model = LogisticRegression(max_iter=1_000).fit(*samples["train"])
    x, y = samples["test"]
    expected = pytest.approx(roc_auc_score(y, model.predict_proba(x)[:, 1]), abs=1e-6)
    assert found["logistic"]["test_auc"] == expected
    assert found["dummy"]["val_accuracy"] == 0.99 and found["dummy"]["val_auc"] == 0.5
    assert "dummy *" not in capsys.readouterr().out  # however accurate it is


def test_labels_are_judged_as_by_the_task(program, tmp_path):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 3))
    y = (x @ draw.normal(size=(3, 2)) + 0.5 * draw.normal(size=(300, 2)) > 0).astype(int)
    lines = ["a,b,c,warm,wet", *(",".join(map(str, [*p, *q])) for p, q in zip(x, y, strict=True))]
    (tmp_path / "t.csv").write_text("\n".join([*lines, ""]))
    out = tmp_path / "out.csv"
    words = ["data=table", f"data.path={tmp_path / 't.csv'}", "data.target=[warm,wet]"]
    assert program.main([*words, f"out={out}"]) == 0
    found = table(out)
    data = TableFile(str(tmp_path / "t.csv"), ("warm", "wet"), batch_size=None)
    samples = arrays(data)
    features, labels = samples["test"]
    models = [
        LogisticRegression(max_iter=1_000).fit(samples["train"][0], samples["train"][1][:, i])
        for i in range(2)
    ]
    p = np.stack([model.predict_proba(features)[:, 1] for model in models], 1)
    expected = {
        "macro_f1": f1_score(labels, p > 0.5, average="macro"),
        "auc": roc_auc_score(labels, p),
        "subset_accuracy": (labels == (p > 0.5)).all(1).mean(),
    }
    for name, value in expected.items():
        assert found["logistic"][f"test_{name}"] == pytest.approx(value, abs=1e-6)
    assert found["dummy"]["test_auc"] == 0.5 and "svm" not in found
