"""zoo.create_model and zoo.list_models."""

import re

import pytest
import torch

import zoo
from zoo.config.errors import ConfigError
from zoo.models.vision.resnet import resnet18


def test_models_are_listed_by_pattern():
    names = zoo.list_models("resnet*")
    assert "resnet18" in names and "resnet50" in names
    assert all(name.startswith("resnet") for name in names)
    assert set(names) < set(zoo.list_models())
    assert zoo.list_models("nope*") == []


def test_a_model_is_that_of_its_builder():
    torch.manual_seed(0)
    model = zoo.create_model("resnet18", num_classes=10)
    torch.manual_seed(0)
    expected = resnet18(10)
    assert type(model) is type(expected)
    assert model.state_dict().keys() == expected.state_dict().keys()
    for name, entry in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], entry), name


def test_defaults_are_those_of_the_configuration():
    assert zoo.create_model("mlp", in_features=4, num_classes=2)(torch.rand(3, 4)).shape == (3, 2)


@pytest.mark.parametrize(
    ("name", "arguments", "fragments"),
    [
        ("resnet19", {}, ("resnet19", "did you mean 'resnet18'?")),
        ("resnet18", {"num_clases": 10}, ("num_clases", "did you mean 'resnet18.num_classes'?")),
        ("resnet18", {"num_classes": "ten"}, ("num_classes", "an integer")),
        ("mlp", {}, ("in_features", "required")),
        ("resnet18", {"num_classes": 0}, ("num_classes must be at least 1",)),
    ],
)
def test_wrong_names_and_values_are_refused_in_a_sentence(name, arguments, fragments):
    with pytest.raises(ConfigError) as caught:
        zoo.create_model(name, **arguments)
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


SIZES = {
    **{"in_features": 8, "out_features": 2, "num_classes": 3, "in_channels": 3},
    **{"image_size": 32, "input_length": 250, "vocab_size": 11, "sequence_length": 16},
    **{"source_vocab_size": 11, "target_vocab_size": 12, "cardinalities": [4, 3]},
}
"""For what has no default, since only the data know it."""


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_listed_model_can_be_created(name):
    missing = {}
    with torch.device("meta"):
        while True:
            try:
                model = zoo.create_model(name, **missing)
                break
            except ConfigError as error:
                found = re.match(r".*\.(\w+) (is required|must be given)", str(error))
                assert found and found[1] in SIZES and found[1] not in missing, error
                size = found[1]
                missing[size] = SIZES[size]
    assert sum(p.numel() for p in model.parameters()) > 0
