import csv
import json

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.decomposition import PCA

from zoo.data.download import DataError
from zoo.data.tabular.diabetes import Diabetes
from zoo.data.tabular.table import TableFile
from zoo.models.linear import LinearRegression
from zoo.tasks.prediction import Several, Values
from zoo.tasks.regression import Regression


@pytest.fixture
def table(tmp_path):
    """Writes a table and makes its module: `table("a,b\\n1,2\\n", target="b", ...)`."""

    def make(text, target="y", *, name="mine.csv", **options):
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return TableFile(str(file), target, **{"batch_size": None} | options)

    return make


def rows(count, *, seed=0):
    """A table with text, gaps, an identifier and an unbalanced class."""
    draw = np.random.default_rng(seed)
    lines = ["user_id,age,city,member,y"]
    for number in range(count):
        age = "" if draw.random() < 0.1 else draw.integers(18, 80)
        city, member = draw.choice(["York", "Leeds", ""]), draw.choice(["yes", "no"])
        lines.append(f"{number + 7},{age},{city},{member},{'bad' if number % 20 == 0 else 'good'}")
    return "\n".join([*lines, ""])


def all_of(module, split):
    ((features, targets),) = module.batches(split, 0)
    return features, targets


def notes_of(module):
    module.setup()
    return "\n".join(module.notes)


def test_a_csv_of_diabetes_gives_the_batches_of_diabetes_bit_for_bit(tmp_path):
    found = load_diabetes(scaled=False)
    with open(tmp_path / "own.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*found.feature_names, "progression"])
        for features, target in zip(found.data.tolist(), found.target.tolist(), strict=True):
            writer.writerow([*features, target])
    for options in ({}, {"standardize": False}, {"split_seed": 3}, {"fold": 2, "num_folds": 5}):
        options |= {"batch_size": 50}
        built_in = Diabetes(**options)
        own = TableFile(str(tmp_path / "own.csv"), "progression", **options)
        for module in (built_in, own):
            module.setup(seed=1)
        for split in built_in.splits:
            pairs = zip(built_in.batches(split, 1), own.batches(split, 1), strict=True)
            for theirs, ours in pairs:
                assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
        assert own.facts() == built_in.facts() | {"target_names": ["progression"]}


def test_what_the_columns_are_is_found_and_said(table):
    module = table(rows(200))
    said = notes_of(module)
    assert "mine.csv: 200 rows; 140 train, 30 val, 30 test" in said
    assert "target, classes (task=classification): y, in training bad 7, good 133" in said
    assert "number: age\nboolean: member\ncategory: city\nleft out: user_id (an identifier)" in said
    assert "categories in training, one_hot: city 3" in said
    features, targets = all_of(module, "train")
    assert features.shape == (140, 6) and features.dtype == torch.float32  # with a column of gaps
    assert targets.dtype == torch.int64 and targets.bincount().tolist() == [7, 133]
    assert module.facts() == {"in_features": 6, "num_classes": 2, "class_names": ["bad", "good"]}
    for column in (2, 3, 4, 5):  # whether there is a gap, and the cities
        assert set(features[:, column].tolist()) == {0, 1}
    assert features[:, 3:].sum(1).eq(1).all()


def test_numbers_are_filled_and_scaled_by_the_training_rows_alone(table):
    lines = ["x,split,y", "1,train,0.5", ",train,1.5", "5,train,2.5", "6,train,3.5"]
    lines += ["100,val,7.5", ",test,9.5", ""]
    module = table("\n".join(lines), split="split")
    module.setup()
    filled = torch.tensor([1.0, 5.0, 5.0, 6.0]).double()
    mean, std = filled.mean(), filled.std(correction=0)
    features, targets = all_of(module, "train")
    assert torch.equal(features[:, 0], ((filled - mean) / std).float())
    assert features[:, 1].tolist() == [0, 1, 0, 0]
    torch.testing.assert_close(targets.flatten(), (torch.arange(4) - 1.5) / 1.25**0.5)
    val, _ = all_of(module, "val")
    torch.testing.assert_close(val, torch.tensor([[(100 - mean) / std, 0.0]]).float())
    test, last = all_of(module, "test")
    torch.testing.assert_close(test, torch.tensor([[(5 - mean) / std, 1.0]]).float())
    torch.testing.assert_close(module.in_units(Values(last)).values, torch.tensor([[9.5]]))
    assert module.value_names == ("y",)


def test_what_training_has_not_seen_is_zeros_and_said(table):
    text = "c,x,split,y\na,1,train,p\nb,2,train,q\na,3,train,p\nd,4,val,q\n,,val,p\n"
    module = table(text, split="split", categorical=("c",))
    said = notes_of(module)
    assert "val: " in said and "2 rows have a 'c' that no training row has ('d', a gap)" in said
    assert "1 gaps in 'x', which has none in training: filled with the median, 2" in said
    features, _ = all_of(module, "val")
    assert features[:, 1:].tolist() == [[0, 0], [0, 0]] and module.splits == ("train", "val")


def test_codes_stand_behind_the_numbers(table):
    text = "c,x,split,y\nb,1,train,p\na,2,train,q\n,3,train,p\nd,4,val,q\n"
    module = table(text, split="split", categories="codes", categorical=("c",))
    module.setup()
    assert all_of(module, "train")[0][:, 1].tolist() == [2, 1, 3]
    assert all_of(module, "val")[0][:, 1].tolist() == [0]
    facts = module.facts()
    assert facts["cardinalities"] == [4] and facts["num_numbers"] == 1
    assert "in_features" not in facts
    assert "set model=entity_embeddings" in module.lacks()["in_features"]


def test_the_kind_of_the_target_follows_from_its_values(table):
    numbers = "".join(f"{i / 7:.3f},{i % 3},{i % 2},{(i // 2) % 2},{i}\n" for i in range(60))
    text = "x,three,a,b,count\n" + numbers
    for target, kind, fact in (
        ("three", "classes", {"num_classes": 3, "class_names": ["0", "1", "2"]}),
        ("count", "numbers", {"out_features": 1, "target_names": ["count"]}),
        (("x", "count"), "numbers", {"out_features": 2, "target_names": ["x", "count"]}),
        (("a", "b"), "labels", {"num_classes": 2, "class_names": ["a", "b"]}),
        ("a", "classes", {"num_classes": 2, "class_names": ["0", "1"]}),
    ):
        module = table(text, target)
        module.setup()
        assert module.resolved() == {"target_kind": kind}
        assert fact.items() <= module.facts().items()
    _, labels = all_of(table_ready(table(text, ("a", "b"))), "train")
    assert labels.shape == (42, 2) and labels.dtype == torch.float32
    assert set(labels.flatten().tolist()) == {0, 1}
    _, given = all_of(table_ready(table(text, "three", target_kind="numbers")), "train")
    assert given.dtype == torch.float32 and given.shape == (42, 1)


def table_ready(module):
    module.setup()
    return module


def test_classes_that_are_numbers_are_in_their_order(table):
    module = table_ready(table("x,y\n" + "".join(f"{i}.5,{i % 11}\n" for i in range(220))))
    assert module.resolved() == {"target_kind": "numbers"}  # more than ten
    module = table_ready(
        table("x,y\n" + "".join(f"{i}.5,{i % 11}\n" for i in range(220)), target_kind="classes")
    )
    assert module.facts()["class_names"] == [str(i) for i in range(11)]


def test_the_task_that_fits_is_named(table):
    text = "x,a,b,n\n" + "".join(f"{i / 7},{i % 2},{i // 2 % 2},{i / 3}\n" for i in range(40))
    for target, fact, task in (
        ("n", "num_classes", "set task=regression and model=linear_regression"),
        ("a", "out_features", "set task=classification and a model of classes"),
        (("a", "b"), "out_features", "set task=multi_label_classification and"),
    ):
        module = table_ready(table(text, target))
        assert task in module.lacks()[fact] and fact not in module.facts()


@pytest.mark.parametrize("way", ["time", "dates", "group", "split", "files", "fold"])
def test_rows_are_divided_as_asked_for(table, tmp_path, way):
    lines = [f"{i}.5,{i},2024-{i // 28 + 1:02}-{i % 28 + 1:02},g{i % 9},{i}.25" for i in range(90)]
    order = np.random.default_rng(0).permutation(90)
    text = "\n".join(["x,n,when,who,y", *(lines[i] for i in order), ""])
    options = {"standardize": False, "ignore": ("who", "when")}
    ways = {
        "time": {"time": "n", "ignore": ("who", "when")},
        "dates": {"time": "when", "ignore": ("who",)},
        "group": {"group": "who", "ignore": ("when",)},
        "split": {"split": "part"},
        "files": {"test": str(tmp_path / "other.csv")},
        "fold": {"fold": 3, "num_folds": 9, "group": "who", "ignore": ("when",)},
    }
    if way == "split":
        parts = ["train"] * 50 + ["val"] * 20 + ["test"] * 15 + [""] * 5
        body = text.splitlines()[1:]
        added = [f"{row},{part}" for row, part in zip(body, parts, strict=True)]
        text = "\n".join(["x,n,when,who,y,part", *added, ""])
    (tmp_path / "other.csv").write_text("y,x,n,who,when\n7.5,1000.5,4,g1,2024-01-01\n")
    module = table_ready(table(text, **options | ways[way]))
    found = {
        s: all_of(module, s)[1].flatten().sub(0.25).round().int().tolist() for s in module.splits
    }
    assert list(found) == ["train", "val", "test"]
    if way in ("time", "dates"):
        assert sorted(found["train"] + found["val"] + found["test"]) == list(range(90))
        assert max(found["train"]) < min(found["val"]) <= max(found["val"]) < min(found["test"])
        assert module.facts()["in_features"] == (1 if way == "time" else 2)
    elif way in ("group", "fold"):
        groups = [{i % 9 for i in part} for part in found.values()]
        assert sum(map(len, groups)) == len(set().union(*groups)) == 9
    elif way == "split":
        assert [len(part) for part in found.values()] == [50, 20, 15]
        assert set(found["train"]) == {int(i) for i in order[:50]}
    else:
        assert [len(part) for part in found.values()] == [76, 14, 1] and found["test"] == [7]


def test_rows_of_one_time_stay_together(table):
    text = "x,t,y\n" + "".join(f"{i}.5,{i // 10},{i}.25\n" for i in range(60))
    module = table_ready(table(text, time="t", standardize=False))
    sizes = [module.loaders[split].num_samples for split in module.splits]
    assert sizes == [40, 10, 10]
    with pytest.raises(DataError, match="no row is left for train by the column 't'"):
        table_ready(table("x,t,y\n" + "".join(f"{i},5,{i}.5\n" for i in range(60)), time="t"))


def test_parquet_is_read_with_the_types_that_it_has(tmp_path):
    count = 60
    frame = pl.DataFrame(
        {
            "zip": [("10115", "20095")[i % 2] for i in range(count)],
            "is_new": [i % 3 == 0 for i in range(count)],
            "size": [float("nan") if i == 1 else i / 3 for i in range(count)],
            "when": pl.Series([f"2024-01-{i % 28 + 1:02}" for i in range(count)]).str.to_date(),
            "tags": [[1, 2]] * count,
            "y": [i // 2 for i in range(count)],
        }
    )
    frame.write_parquet(tmp_path / "own.parquet")
    module = TableFile(str(tmp_path / "own.parquet"), "y")
    said = notes_of(module)
    assert "number: size\nboolean: is_new\ncategory: zip" in said
    assert "left out: when (a date), tags (of type List(Int64))" in said
    (tmp_path / "new.csv").write_text("zip,size,is_new\n10115,,True\n20095,7.5,false\n")
    features, names = module.read_inputs(tmp_path / "new.csv")
    assert features.shape == (2, module.facts()["in_features"])
    assert [name["row"] for name in names] == ["1", "2"]
    (tmp_path / "bad.parquet").write_bytes(b"no such thing")
    with pytest.raises(DataError, match=r"bad.parquet cannot be read as Parquet \("):
        table_ready(TableFile(str(tmp_path / "bad.parquet"), "y"))


def test_tabs_separate_where_the_name_says_so(table):
    text = "x\tnote\ty\n" + "".join(f"{i}.5\ta, b\t{'pq'[i % 2]}\n" for i in range(40))
    assert "left out: note (the same in all training rows)" in notes_of(table(text, name="a.tsv"))


def test_a_later_process_needs_the_run_folder_alone(table, tmp_path):
    first = table_ready(table(rows(200)))
    (content,) = first.artifacts().values()
    (tmp_path / "table.json").write_text(content)
    again = TableFile("nowhere.csv", "y")
    again.load_artifacts(tmp_path)
    new = tmp_path / "new.csv"
    new.write_text("member,city,age,user_id\nYES,York,,5\nno,Oslo,44,6\n")
    features, names = again.read_inputs(new)
    assert torch.equal(features, first.read_inputs(new)[0])
    assert names == [{"row": "1", "user_id": "5"}, {"row": "2", "user_id": "6"}]
    assert again.notes == [
        f"{new}: 1 rows have a 'city' that no training row has ('Oslo'): all zeros"
    ]
    assert json.loads(again.artifacts()["table.json"]) == json.loads(content)
    (tmp_path / "table.json").write_text(content[:100])
    with pytest.raises(ValueError, match=r"table.json cannot be read .*restore it"):
        again.load_artifacts(tmp_path)


def test_what_was_learned_is_not_learned_anew(table, tmp_path):
    (tmp_path / "table.json").write_text(table_ready(table(rows(200))).artifacts()["table.json"])
    other = table(rows(200, seed=1))
    other.load_artifacts(tmp_path)
    other.setup()
    assert other.artifacts()["table.json"] == (tmp_path / "table.json").read_text()


def test_the_worked_example_of_least_squares(table):
    text = "x,y,split\n1,4,train\n3,8,train\n6,14,train\n5,13,train\n1,4,val\n"
    module = table_ready(table(text, split="split", standardize=False))
    assert module.resolved() == {"target_kind": "numbers"}
    batch = all_of(module, "train")
    model = LinearRegression(1)
    task = Regression(model)
    with torch.no_grad():
        model.linear.weight.fill_(5)
        model.linear.bias.fill_(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
    halves = []
    for _ in range(5):
        optimizer.zero_grad()
        loss, _ = task.loss(batch)
        halves.append(loss.item() / 2)
        loss.backward()
        optimizer.step()
        if len(halves) == 1:
            assert model.linear.weight.item() == pytest.approx(4.5175)
            assert model.linear.bias.item() == pytest.approx(0.9)
    assert halves == pytest.approx([65.75, 43.7215, 29.1077, 19.4127, 12.9808], rel=1e-5)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("x,y\n1,2\n", {"target": "z"}, r"mine.csv, line 1: there must be one column 'z', not 0"),
        ("x;y\n1;2\n", {}, r"line 1: .* they look separated by ';': separate them by ','"),
        ("x,x,y\n1,2,3\n", {}, r"line 1: there must be one column 'x', not 2"),
        ("x,y\n1,2\n3\n", {}, r"line 3: there are 1 columns, but 2 in the header"),
        ("x,y\n", {}, r"mine.csv holds no row below its header"),
        (rows(40), {"ignore": ("agee",)}, r"no column 'agee', which data.ignore names; its"),
        (rows(40) + "9,30,York,yes,\n", {}, r"line 42: the target 'y' is missing, .* 1 rows"),
        ("x,y\n" + "1.5,a\n2.5,a\n" * 20, {}, r"rows have the y 'a': there must be two or more"),
        ("x,y\n" + "1.5,7\n2.5,7\n" * 20, {"target_kind": "numbers"}, r"the y 7: .* nothing to"),
        ("x,y\n" + "1,a\n1,b\n" * 20, {}, r"no column is left to learn from"),
        (
            "x,y\n" + "1.5,a\n2.5,b\n" * 20 + "12 m,a\n",
            {},
            r"line 42: the column 'x' has '12 m', but numbers in most rows: .* \[x\]",
        ),
        ("x,y\n" + "1.5,a\n2.5,b\n" * 20 + "inf,a\n", {}, r"line 42: .* 'inf', .* not a finite"),
        ("x,y\n" + "1,1.5\n2,2.5\n" * 20 + "3,high\n", {}, r"'y' has 'high', but .*target_kind="),
        (
            "x,y\n" + "1.5,a\n2.5,b\n" * 20,
            {"target_kind": "numbers"},
            r"line 2: the column 'y' has",
        ),
        (
            "x,y,z\n" + "1,a,0\n2,b,1\n" * 20,
            {"target": ("y", "z"), "class_names": ("b", "a")},
            r"data.class_names orders the classes of a single target",
        ),
        (
            "x,y,z\n" + "1.5,0,0\n2,1,2\n" * 20,
            {"target": ("y", "z"), "target_kind": "labels"},
            r"line 3: the label 'z' is 2: it must be 0 or 1",
        ),
        (
            "x,s,y\n1,train,a\n2,dev,b\n",
            {"split": "s"},
            r"line 3: the column 's' has 'dev': it must",
        ),
        ("x,s,y\n1,train,a\n2,train,b\n", {"split": "s"}, r"no row is in val by the column 's'"),
        (
            "x,s,y\n1,train,a\n2,train,b\n3,val,c\n",
            {"split": "s"},
            r"line 4: the y 'c' of this val row is not one of the training rows' \(a, b\)",
        ),
        (
            "x,t,y\n" + "1,2024-01-02,2.5\n2,soon,3.5\n",
            {"time": "t"},
            r"line 3: .* 'soon': data.time",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_line_and_fix(table, text, options, said):
    options = dict(options)
    module = table(text, options.pop("target", "y"), **options)
    with pytest.raises(DataError, match=said):
        module.setup()


def test_a_new_table_that_lacks_a_column_or_has_text_for_a_number_is_refused(table, tmp_path):
    module = table_ready(table(rows(100)))
    new = tmp_path / "new.csv"
    for text, said in (
        ("age,member\n44,yes\n", r"new.csv has no column 'city', which this run has learned from"),
        (
            "age,member,city\n44,yes,York\nold,no,York\n",
            r"line 3: the column 'age' has 'old', which",
        ),
        ("age,member,city\n44,maybe,York\n", r"line 2: the column 'member' has 'maybe'"),
    ):
        new.write_text(text)
        with pytest.raises(DataError, match=said):
            module.read_inputs(new)


def test_nonsense_is_refused_with_the_value():
    for options, said in (
        (
            {"target_kind": "x"},
            "target_kind must be one of auto, numbers, classes, labels, not 'x'",
        ),
        ({"categories": "x"}, "categories must be one of one_hot, codes, not 'x'"),
        ({"time": "t", "fold": 1}, "fold must be null if time is given"),
        ({"group": "g", "split": "s"}, "split must be null if group is given"),
        ({"val": "v", "fold": 0}, "val must be null if fold is given"),
        ({"ignore": ("y",)}, "ignore must not name 'y', which target names"),
        ({"numeric": ("a",), "categorical": ("a",)}, "numeric must not name 'a', which categor"),
        ({"batch_size": 0}, "batch_size must be at least 1 or None, not 0"),
        ({"fold": 10}, r"fold must be from 0 to 9 \(num_folds\), not 10"),
    ):
        with pytest.raises(ValueError, match=said):
            TableFile("a.csv", "y", **options)
    with pytest.raises(ValueError, match=r"target must be one column or different ones, not \[\]"):
        TableFile("a.csv", ())


def test_rare_classes_and_bagged_rows_change_the_training_rows_alone(table):
    lines = ["x,y", *(f"{i},{'rare' if i % 10 == 0 else 'usual'}" for i in range(100)), ""]
    text = "\n".join(lines)
    plain, balanced, bagged = (
        table(text, batch_size=1_000, **options)
        for options in ({}, {"balance": "oversample"}, {"bootstrap_seed": 1})
    )
    for module in (plain, balanced, bagged):
        module.setup()
    sets = [{split: all_of(m, split) for split in m.splits} for m in (plain, balanced, bagged)]
    for split in ("val", "test"):
        for other in sets[1:]:
            assert all(torch.equal(a, b) for a, b in zip(sets[0][split], other[split], strict=True))
    counts = [found["train"][1].bincount().tolist() for found in sets]
    assert counts[0] == [7, 63] and counts[1] == [63, 63] and sum(counts[2]) == 70
    assert plain.preparation == bagged.preparation  # what is learned is learned from all rows
    assert len(sets[2]["train"][0].unique(dim=0)) < 60
    numbers = "\n".join(["x,y", *(f"{i},{i + 0.5}" for i in range(40)), ""])
    with pytest.raises(ValueError, match="balance=resample needs one class a sample"):
        table(numbers, balance="resample", batch_size=8).setup()


@pytest.mark.parametrize("components", [2, 0.9])
def test_principal_components_are_scikit_learns_and_are_kept(table, tmp_path, components):
    plain, module = (table(rows(120), components=c, batch_size=None) for c in (None, components))
    for each in (plain, module):
        each.setup()
    columns = {split: all_of(plain, split)[0].numpy() for split in plain.splits}
    twin = PCA(components).fit(columns["train"].astype("float64"))
    signs = np.sign(
        np.take_along_axis(twin.components_, abs(twin.components_).argmax(1)[:, None], 1)
    )
    for split in module.splits:
        expected = twin.transform(columns[split]) * signs.T
        np.testing.assert_allclose(all_of(module, split)[0].numpy(), expected, atol=1e-5)
    assert module.facts()["in_features"] == len(twin.components_)
    for name, text in module.artifacts().items():
        (tmp_path / name).write_text(text)
    again = table(rows(120), components=components, batch_size=None)
    again.load_artifacts(tmp_path)
    again.setup()
    assert torch.equal(all_of(again, "test")[0], all_of(module, "test")[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 0}, "components must be a number of them from 1 on"),
        ({"components": 1.5}, "share of the variance between 0 and 1"),
        ({"components": 2, "categories": "codes"}, "components must be null with categories=codes"),
    ],
)
def test_components_that_there_cannot_be_are_refused(table, options, message):
    with pytest.raises(ValueError, match=message):
        table("x,y\n1,2\n", **options)


def test_targets_of_several_kinds_are_each_what_they_are_alone(table, tmp_path):
    lines = rows(200).replace("y\n", "y,price\n", 1).splitlines()
    priced = [lines[0], *(f"{line},{100 + 7 * n}" for n, line in enumerate(lines[1:]))]
    text = "\n".join([*priced, ""])
    module = table(text, ("price", "y", "member"))
    said = notes_of(module)
    assert "target, numbers (task=multi_task): price, standardised" in said
    assert "target, classes (task=multi_task): y, in training bad 7, good 133" in said
    assert module.resolved() == {"target_kind": ["numbers", "classes", "classes"]}
    assert module.facts()["target_classes"] == [[], ["bad", "good"], ["no", "yes"]]
    assert module.facts()["num_classes"] == 5 and module.value_names == ()
    features, targets = all_of(module, "val")
    assert targets.dtype == torch.float32 and targets.shape == (30, 3)
    # Divided by the first class: as for that class alone, which ignores the other targets.
    alone = table(text, "y", ignore=("price", "member"))
    alone.setup()
    single_features, single = all_of(alone, "val")
    assert torch.equal(targets[:, 1], single.float()) and torch.equal(features, single_features)
    # What was learned is in the run folder, and turns predictions back.
    for name, content in module.artifacts().items():
        (tmp_path / name).write_text(content)
    again = table(text, ("price", "y", "member"))
    again.load_artifacts(tmp_path)
    parts = {"price": Values(targets[:, :1]), "y": "as it is", "member": None}
    found = again.in_units(Several(parts)).parts
    prices = {float(line.rpartition(",")[2]) for line in priced[1:]}
    assert {round(v, 2) for v in found["price"].values.flatten().tolist()} <= prices
    assert found["y"] == "as it is"


def test_kinds_of_several_targets_are_found_or_said(table):
    text = "x,a,b,c\n" + "".join(f"{n},{n % 2},{n / 7},{'yn'[n % 2]}\n" for n in range(40))
    for target, options, kind in (
        (("a", "b"), {}, "numbers"),
        (("a", "b"), {"target_kind": ("classes", "numbers")}, ("classes", "numbers")),
        (("b", "c"), {}, ("numbers", "classes")),
        (("a", "c"), {}, "labels"),
    ):
        module = table(text, target, **options)
        module.setup()
        assert module.target_kind == kind
    with pytest.raises(ValueError, match="numbers or classes for each of 2 targets, or one kind"):
        table(text, ("a", "b"), target_kind=("numbers",))
