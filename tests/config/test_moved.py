"""Names of 0.1.0 lead to what they named."""

import inspect
from importlib import import_module

import pytest

from zoo.config.moved import ARGUMENTS, TARGETS, moved, translated


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


@pytest.mark.parametrize("target", ARGUMENTS)
def test_arguments_of_today_are_there_and_those_of_before_are_not(target):
    module, _, name = target.rpartition(".")
    known = inspect.signature(getattr(import_module(module), name)).parameters
    for old, new in ARGUMENTS[target].items():
        assert new in known and old not in known


def test_arguments_are_translated_under_their_target_alone():
    stored = {
        "task": {"_target_": "zoo.tasks.adversarial.Adversarial", "discriminator_steps": 2},
        "other": {"_target_": "zoo.tasks.classification.Classification", "discriminator_steps": 2},
    }
    found = translated(stored)
    target = "zoo.tasks.generative.adversarial.Adversarial"
    assert found["task"] == {"_target_": target, "generator_every": 2}
    assert found["other"] == stored["other"]
    assert "discriminator_steps" in stored["task"]  # what was stored stays as it is


@pytest.mark.parametrize("is_on", [False, True])
def test_an_argument_that_the_trainer_has_now_becomes_its_setting(is_on):
    stored = {"model": {"_target_": "zoo.models.mlp.MLP", "gradient_checkpointing": is_on}}
    expected = {"model": {"_target_": "zoo.models.mlp.MLP"}}
    if is_on:
        expected["trainer"] = {"activation_checkpointing": True}
    assert translated(stored) == expected
