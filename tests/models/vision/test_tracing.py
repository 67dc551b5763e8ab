"""Networks for images can be traced, exported and looked into, whatever they check of an image."""

import functools
import importlib
import inspect
import pkgutil

import pytest
import torch
from torch import fx, nn

import zoo.models.segmentation
import zoo.models.vision
from tests.models.vision.networks import NETWORKS
from zoo.models.vision.cnn import CNN


@functools.cache
def built(name):
    torch.manual_seed(0)
    return NETWORKS[name].build(num_classes=5).eval()


def images(name, batch):
    return torch.rand(batch, *NETWORKS[name].shape)


each = pytest.mark.parametrize("name", NETWORKS)


def test_every_network_is_here():
    found = set()
    for package in (zoo.models.vision, zoo.models.segmentation):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            made = {
                inspect.signature(member).return_annotation
                for name, member in inspect.getmembers(module, inspect.isfunction)
                if member.__module__ == info.name and not name.startswith("_")
            }
            found |= {m for m in made if inspect.isclass(m) and m.__module__ == info.name}
    networks = {kind for kind in found if issubclass(kind, nn.Module)} | {CNN}  # has no builder
    assert len(networks) > 20
    with torch.device("meta"):
        assert {type(case.build(num_classes=5)) for case in NETWORKS.values()} == networks


@each
@torch.no_grad()
def test_traced_network_equals_the_network_at_any_batch_size(name):
    model = built(name)
    traced = fx.symbolic_trace(model)
    for batch in (1, 3):
        x = images(name, batch)
        assert torch.equal(traced(x), model(x))


@pytest.mark.slow
@each
@torch.no_grad()
def test_exported_network_equals_the_network_at_another_batch_size(name):
    model = built(name)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (images(name, 2),), dynamic_shapes=({0: batch},))
    x = images(name, 3)
    torch.testing.assert_close(exported.module()(x), model(x))


@each
def test_images_are_checked_where_nothing_is_traced(name):
    shape = NETWORKS[name].shape
    for wrong in ((shape[0] + 1, *shape[1:]), shape[:-1]):
        with pytest.raises(ValueError, match="x must be"):
            built(name)(torch.rand(2, *wrong))
