"""Names of 0.1.0 lead to what they named."""

from importlib import import_module

import pytest

from zoo.config.moved import TARGETS, moved


@pytest.mark.parametrize("old", TARGETS)
def test_what_an_old_name_leads_to_is_there(old):
    new = moved(old)
    try:
        import_module(new)
    except ModuleNotFoundError:
        module, _, name = new.rpartition(".")
        assert hasattr(import_module(module), name)


@pytest.mark.parametrize("new", [*TARGETS.values(), "zoo.data.text.text_files.TextFiles"])
def test_a_name_of_today_stays_what_it_is(new):
    assert moved(new) == new
