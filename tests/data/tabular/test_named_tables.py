import csv

import pytest
import torch
from sklearn import datasets

from zoo.data.download import DataError
from zoo.data.tabular.named_tables import PENGUINS, NamedTable


@pytest.mark.parametrize("name", ["breast_cancer", "iris", "wine"])
def test_scikit_learns_tables_are_all_there(name):
    module = NamedTable(name, standardize=False, batch_size=None)
    module.setup()
    found = getattr(datasets, f"load_{name}")()
    parts = [next(iter(module.batches(split, 0))) for split in module.splits]
    rows = torch.cat([torch.cat([x, y.unsqueeze(1)], 1) for x, y in parts])
    names = module.facts()["class_names"]
    classes = [names.index(found.target_names[number]) for number in found.target]
    expected = torch.cat(
        [torch.from_numpy(found.data).float(), torch.tensor(classes).unsqueeze(1)], 1
    )
    assert sorted(rows.tolist()) == sorted(expected.tolist())
    assert module.facts()["in_features"] == found.data.shape[1]
    assert not module.resolved() and not module.changeable


def test_penguins_have_text_and_gaps():
    with open(PENGUINS, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 344 and sum(list(row.values()).count("NA") for row in rows) == 19
    module = NamedTable("penguins", batch_size=None)
    module.setup()
    said = "\n".join(module.notes)
    assert "category: island, sex" in said and "and indicated: bill_length_mm" in said
    features, targets = next(iter(module.batches("train", 0)))
    assert features.shape == (241, 5 + 4 + 3 + 3)
    assert features[:, 5:].unique().tolist() == [0, 1]
    counts = torch.tensor(
        [[r["species"] for r in rows].count(n) for n in module.facts()["class_names"]]
    )
    torch.testing.assert_close(targets.bincount() / 241, counts / 344, atol=0.01, rtol=0)


def test_folds_are_stratified_and_others_are_refused():
    for fold in range(5):
        module = NamedTable("iris", fold=fold, num_folds=5, batch_size=None)
        module.setup()
        _, targets = next(iter(module.batches("test", 0)))
        assert targets.bincount().tolist() == [10, 10, 10]
    with pytest.raises(ValueError, match=r"name must be one of breast_cancer, iris, .* not 'cars'"):
        NamedTable("cars")


def test_other_columns_may_be_predicted_and_rows_without_them_are_left_out():
    module = NamedTable("penguins", target=("species", "body_mass_g"), batch_size=None)
    module.setup()
    assert module.notes[0].startswith("penguins: 342 rows")
    assert module.facts()["target_classes"] == [["Adelie", "Chinstrap", "Gentoo"], []]
    masses = torch.cat([next(iter(module.batches(s, 0)))[1][:, 1] for s in module.splits])
    with open(PENGUINS, newline="", encoding="utf-8") as file:
        known = [r["body_mass_g"] for r in csv.DictReader(file) if r["body_mass_g"] != "NA"]
    back = module.targets.parts[1].in_units(masses.unsqueeze(1)).flatten()
    torch.testing.assert_close(back.sort().values, torch.tensor(sorted(map(float, known))))
    with pytest.raises(DataError, match=r"has no column 'weight', which data\.target"):
        NamedTable("penguins", target="weight").setup()
