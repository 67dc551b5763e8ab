"""Fits scikit-learn's models to the data of a run or an experiment: what a network has to beat.

    python scripts/baseline.py run=runs/lenet_digits/<run>
    python scripts/baseline.py experiment=huber_diabetes fit=ridge,forest out=diabetes.csv

Fitted to the training split, judged on val and test by the metrics of this project, with each
model's own defaults but for a seed. The samples are those of the data module, flattened: scaled as
the network gets them, and of training images those of the first epoch, augmented if they are. Of
labelled texts it is the TF-IDF of words and pairs of words, known from the training texts. What is
best on val has a star: by the area under the ROC curve of two classes, else by accuracy or rmse.
Configuration words are those of train.py, of which only the data matter; besides them:

run=<folder>   the data of a stored run, or of each run of a sweep; all models together are then
               written to baselines.json in its folder, from which scripts/results.py takes the best
fit=<names>    instead of all. For classes: dummy, logistic, linear_svm, svm, knn, naive_bayes,
               pca_logistic, tree, forest, boosting. For labels: dummy, logistic, knn, naive_bayes,
               tree, forest, boosting. For texts: dummy, logistic, linear_svm, naive_bayes. For
               numbers: dummy, linear, ridge, lasso, svm, knn, pca_linear, tree, forest, boosting.
               For series also, fitted to nothing: naive (the last value goes on) and
               seasonal_naive (that of data.period steps before)
limit=0        training samples, the first of the first epoch; 0 for all. Kernel machines take hours
               for more than some ten thousand
seed=0         of the models that draw random numbers
out=<file>     the table as CSV
"""

import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clone  # noqa: F401
from zoo.app.program import program
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, as_config_error

if TYPE_CHECKING:
    from torch import Tensor

PATHS = ("run", "fit", "limit", "seed", "out")
FILE = "baselines.json"
Maker = Callable[[int], Any]
Split = tuple[Any, "Tensor"]


def classifiers() -> dict[str, Maker]:
    """scikit-learn's classifiers, made from a seed."""
    from sklearn import dummy, ensemble, naive_bayes, neighbors, svm, tree
    from sklearn.linear_model import LogisticRegression

    return {
        "dummy": lambda seed: dummy.DummyClassifier(),
        "logistic": lambda seed: LogisticRegression(max_iter=1_000, random_state=seed),
        "linear_svm": lambda seed: svm.LinearSVC(random_state=seed),
        "svm": lambda seed: svm.SVC(random_state=seed),
        "knn": lambda seed: neighbors.KNeighborsClassifier(),
        "naive_bayes": lambda seed: naive_bayes.GaussianNB(),
        "pca_logistic": lambda seed: _of_components(LogisticRegression(max_iter=1_000), seed),
        "tree": lambda seed: tree.DecisionTreeClassifier(random_state=seed),
        "forest": lambda seed: ensemble.RandomForestClassifier(random_state=seed),
        "boosting": lambda seed: ensemble.HistGradientBoostingClassifier(random_state=seed),
    }


def label_classifiers() -> dict[str, Maker]:
    """Those of classes that give probabilities, one of them for each label."""
    makers = classifiers()
    names = ("dummy", "logistic", "knn", "naive_bayes", "tree", "forest", "boosting")
    return {name: partial(_of_labels, makers[name]) for name in names}


def _of_labels(make: Maker, seed: int) -> Any:
    from sklearn.multioutput import MultiOutputClassifier

    return MultiOutputClassifier(make(seed))


def _of_components(model: Any, seed: int) -> Any:
    """A model of the principal components that have 90 % of the variance."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline

    return make_pipeline(PCA(0.9, random_state=seed), model)


def text_classifiers() -> dict[str, Maker]:
    """scikit-learn's classifiers of texts: of those above, what suits many sparse features."""
    from sklearn import naive_bayes

    makers = {name: classifiers()[name] for name in ("dummy", "logistic", "linear_svm")}
    makers["naive_bayes"] = lambda seed: naive_bayes.MultinomialNB()
    return {name: partial(_of_texts, make) for name, make in makers.items()}


def _of_texts(make: Maker, seed: int) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), make(seed))


def regressors() -> dict[str, Maker]:
    """scikit-learn's models of numbers, made from a seed."""
    from sklearn import dummy, ensemble, linear_model, neighbors, svm, tree
    from sklearn.multioutput import MultiOutputRegressor

    return {
        "dummy": lambda seed: dummy.DummyRegressor(),
        "linear": lambda seed: linear_model.LinearRegression(),
        "ridge": lambda seed: linear_model.Ridge(random_state=seed),
        "lasso": lambda seed: linear_model.Lasso(alpha=0.01, random_state=seed),
        "svm": lambda seed: MultiOutputRegressor(svm.SVR()),
        "knn": lambda seed: neighbors.KNeighborsRegressor(),
        "pca_linear": lambda seed: _of_components(linear_model.LinearRegression(), seed),
        "tree": lambda seed: tree.DecisionTreeRegressor(random_state=seed),
        "forest": lambda seed: ensemble.RandomForestRegressor(random_state=seed),
        "boosting": lambda seed: MultiOutputRegressor(
            ensemble.HistGradientBoostingRegressor(random_state=seed)
        ),
    }


MAKERS: dict[str, Callable[[], dict[str, Maker]]] = {
    "classes": classifiers,
    "labels": label_classifiers,
    "texts": text_classifiers,
    "numbers": regressors,
}


def kind_of(data: Any, x: Any, y: "Tensor") -> str:
    """What there is to predict, and for texts from what: a key of `MAKERS`."""
    if isinstance(x[0], str):
        return "texts"
    if not y.is_floating_point():
        return "classes"
    if "target_classes" in data.facts():
        raise ConfigError(
            "data.target: these are of several kinds, and a model here has one target: name it"
        )
    return "labels" if "num_classes" in data.facts() else "numbers"


class Forecaster:
    """A forecast that the data module makes of a window alone, in the manner of scikit-learn."""

    def __init__(self, data: Any, name: str, seed: int) -> None:
        self.data, self.name = data, name  # and nothing is drawn

    def fit(self, inputs: Any, targets: Any) -> None:
        """There is nothing to fit."""

    def predict(self, inputs: Any) -> Any:
        """The forecasts, ``(samples, *)``."""
        import torch

        return self.data.naive_forecasts(torch.from_numpy(inputs))[self.name].numpy()


def forecasters(data: Any, inputs: Any) -> dict[str, Maker]:
    """Those of a series; no others have any."""
    import torch

    if not hasattr(data, "naive_forecasts"):
        return {}
    names = data.naive_forecasts(torch.from_numpy(inputs))
    return {name: partial(Forecaster, data, name) for name in names}


def baseline(line: CommandLine) -> None:
    """Prints a line for each model, of every run that is named."""
    from zoo.app.commands import relative
    from zoo.app.output import check_new
    from zoo.app.prediction_files import write_table
    from zoo.training.run_folder import RunFolder

    out = Path(line.options["out"]) if "out" in line.options else None
    if out is not None:
        check_new(out)
    runs = _runs(line)
    if len(runs) > 1 and out is not None:
        raise ConfigError(f"out={out}: is for one run, and {line.options['run']} is a sweep")
    for run in runs:
        given = line if run is None else replace(line, options=line.options | {"run": str(run)})
        rows = judge_models(given)
        if out is not None:
            write_table(rows, out)
        if run is not None and not {"fit", "limit"} & set(line.options):
            RunFolder(run).write(FILE, {"seed": line.integer("seed", 0, least=0), "models": rows})
            print(relative(run / FILE))


def _runs(line: CommandLine) -> list[Path | None]:
    """The run that is named, or those of a sweep; None: there is an experiment instead."""
    if "run" not in line.options:
        return [None]
    path = Path(line.options["run"])
    members = [file.parent for file in sorted(path.glob("*/config.yaml"))]
    return [path] if (path / "config.yaml").exists() or not members else [*members]


def judge_models(line: CommandLine) -> list[dict[str, str | float]]:
    """What each model reaches; it is printed too."""
    from zoo.tasks.prediction import Table

    limit, seed = line.integer("limit", 0, least=0), line.integer("seed", 0, least=0)
    data, splits = samples(line, limit)
    x, y = splits["train"]
    kind = kind_of(data, x, y)
    makers = MAKERS[kind]() | forecasters(data, x)
    names = line.options["fit"].split(",") if "fit" in line.options else list(makers)
    for name in names:
        if name not in makers:
            raise ConfigError(f"fit={name}: for {kind} there are {', '.join(makers)}")
    rows, notes = [], []
    for name in names:
        try:
            rows.append(fitted(name, makers[name](seed), splits))
        except ValueError as error:  # one that these data do not suit
            notes.append(f"{name} cannot be fitted: {str(error).partition('. ')[0]}")
    if not rows:
        raise ConfigError(f"fit={','.join(names)}: {notes[0]}")
    best = max(rows, key=lambda row: goodness(row, "val"))
    starred = [row | {"model": f"{row['model']} *"} if row is best else row for row in rows]
    counts = ", ".join(f"{len(y):,} {split}" for split, (_, y) in splits.items())
    print(counts if kind == "texts" else f"{counts}; {x.shape[1]:,} features a sample")
    print("\n".join([Table(starred).markdown(), *notes]))
    return rows


def goodness(row: dict[str, Any], split: str) -> float:
    """By what models are ranked: the area under the ROC curve of two classes, accuracy, rmse."""
    for name, sign in (("auc", 1), ("accuracy", 1), ("rmse", -1)):
        if f"{split}_{name}" in row:
            value = sign * float(row[f"{split}_{name}"])
            return value if math.isfinite(value) else -math.inf  # no area without both classes
    raise KeyError(split)


def samples(line: CommandLine, limit: int) -> tuple[Any, dict[str, Split]]:
    """The data module; features ``(samples, features)``, or texts, and targets of each split.

    Raises:
        ConfigError: there is no such run, or its data are neither texts with classes nor pairs of
            features and targets.
    """
    from zoo.app.rebuild import stored_recipe
    from zoo.config.compose import compose

    if "run" in line.options:
        recipe = stored_recipe(line.options["run"], line.overrides, line.trusted)
    else:
        recipe = compose(
            line.overrides, config_dir=line.flags.get("--config-dir"), trusted=line.trusted
        )
    data = recipe.data.build()
    with as_config_error("data"):
        data.setup(seed=recipe.settings.seed)
    is_text = hasattr(data, "texts")
    found = data.texts() if is_text else {split: _pairs(data, split) for split in data.splits}
    if limit:
        found["train"] = found["train"][0][:limit], found["train"][1][:limit]
    return data, found


def _pairs(data: Any, split: str) -> Split:
    """The features and targets of all batches of a split."""
    import torch

    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    for batch in data.batches(split, 0):
        if not _is_pair(batch):
            raise ConfigError(
                f"data: {type(data).__name__} has other batches than features with a class or "
                "numbers for each sample, which is all that these models take"
            )
        inputs.append(batch[0].flatten(1).float())
        targets.append(batch[1].flatten(1) if batch[1].ndim > 2 else batch[1])
    return torch.cat(inputs).numpy(), torch.cat(targets)


def _is_pair(batch: Any) -> bool:
    """Whether it is features and, for each sample, a class or numbers."""
    if not isinstance(batch, tuple) or len(batch) != 2:
        return False
    inputs, targets = batch
    dimensions = (1, 2, 3) if targets.is_floating_point() else (1,)
    return inputs.is_floating_point() and inputs.ndim > 1 and targets.ndim in dimensions


def fitted(name: str, model: Any, splits: dict[str, Split]) -> dict[str, str | float]:
    """What a model reaches on all splits but that which it is fitted to."""
    x, y = splits["train"]
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")  # of solvers that stop early
        single = y.squeeze(1) if y.ndim == 2 and not _wants_columns(model) else y
        model.fit(x, single.numpy())
    row: dict[str, str | float] = {"model": name}
    for split, (inputs, targets) in splits.items():
        if split != "train":
            if type(model).__name__ == "MultiOutputClassifier":
                scores = judged_labels(model, inputs, targets)
            else:
                scores = judged(model.predict(inputs), targets)
                if scores.keys() == {"accuracy"} and len(model.classes_) == 2:
                    scores |= ranked(model, inputs, targets)
            row |= {f"{split}_{metric}": value for metric, value in scores.items()}
    return row | {"seconds": time.perf_counter() - began}


def _wants_columns(model: Any) -> bool:
    return type(model).__name__ in ("MultiOutputRegressor", "MultiOutputClassifier")


def judged(predictions: Any, targets: "Tensor") -> dict[str, float]:
    """The metrics of a task, of predicted classes or numbers."""
    import torch

    from zoo.metrics.sums import R2, Residuals

    found = torch.from_numpy(predictions)
    if not targets.is_floating_point():
        return {"accuracy": (found == targets).double().mean().item()}
    residuals, r2 = Residuals(), R2()
    for metric in (residuals, r2):
        metric.update(found.reshape(targets.shape), targets)
    return {name: float(value) for name, value in residuals.compute().items()} | {
        "r2": float(r2.compute())
    }


def judged_labels(model: Any, inputs: Any, targets: "Tensor") -> dict[str, float]:
    """The metrics of `MultiLabelClassification`."""
    import torch

    from zoo.metrics.labels import LabelScores
    from zoo.metrics.ranking import Ranking

    scores, ranking = LabelScores(targets.size(1)), Ranking()
    scores.update(torch.from_numpy(model.predict(inputs)) > 0, targets)
    given = zip(model.predict_proba(inputs), model.classes_, strict=True)
    # Of a label that all or none have in training there is one column, of what is sure.
    columns = [
        torch.from_numpy(p[:, list(known).index(1)] if 1 in known else 0 * p[:, 0])
        for p, known in given
    ]
    ranking.update(torch.stack(columns, 1), targets)
    found = scores.compute() | ranking.compute()
    return {name: float(value) for name, value in found.items()}


def ranked(model: Any, inputs: Any, targets: "Tensor") -> dict[str, float]:
    """Areas under the curves of the second of two classes."""
    import torch

    from zoo.metrics.ranking import Ranking

    has_probabilities = hasattr(model, "predict_proba")
    found = model.predict_proba(inputs)[:, 1] if has_probabilities else None
    scores = model.decision_function(inputs) if found is None else found
    ranking = Ranking()
    ranking.update(torch.from_numpy(scores), targets)
    return {name: float(value) for name, value in ranking.compute().items()}


main = program(baseline, __doc__, options=PATHS, flags=("--config-dir",))

if __name__ == "__main__":
    sys.exit(main())
