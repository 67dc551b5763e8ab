import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def models():
    spec = importlib.util.spec_from_file_location("models_page", ROOT / "scripts" / "models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(models):
    return models.page()


def test_page_of_models_is_what_its_script_writes(models, page):
    assert models.PAGE.read_text(encoding="utf-8") == page


def test_every_model_configuration_stands_on_the_page(page):
    for path in (ROOT / "configs" / "model").glob("*.yaml"):
        assert f"| `{path.stem}` |" in page


def test_sizes_that_only_the_data_know_are_left_out(models):
    from torch import nn

    assert models.parameters(nn.Linear, {"in_features": "auto", "out_features": 2}) is None
    assert models.parameters(nn.Linear, {"in_features": 3, "out_features": 2}) == 8
