"""Builders hand on just what their network's constructor takes and they do not say themselves."""

import ast
import importlib
import inspect
import pkgutil
import textwrap
import typing

import pytest
from torch import nn

import zoo.models


def find_builders():
    for info in pkgutil.walk_packages(zoo.models.__path__, "zoo.models."):
        module = importlib.import_module(info.name)
        for name, member in inspect.getmembers(module, inspect.isfunction):
            made = typing.get_type_hints(member).get("return")
            if (
                member.__module__ == info.name
                and not name.startswith("_")
                and inspect.isclass(made)
                and issubclass(made, nn.Module)
                and made.__module__.startswith("zoo.models.")
            ):
                yield member


BUILDERS = list(find_builders())


def options(function):
    """What a function hands on, name to type; None if it hands on nothing."""
    handed = [a for a in typing.get_type_hints(function).values() if is_handed_on(a)]
    return typing.get_type_hints(typing.get_args(handed[0])[0]) if handed else None


def is_handed_on(annotation):
    return typing.get_origin(annotation) is typing.Unpack


def keywords(kind):
    """The keyword arguments of a constructor, name to type."""
    hints = typing.get_type_hints(kind.__init__)
    named = {
        p.name: hints[p.name]
        for p in inspect.signature(kind).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    return named | (options(kind.__init__) or {})


def call_that_hands_on(builder):
    """The call with ``**options``: what it calls, and the names of its other keywords."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(builder)))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (call,) = [c for c in calls if any(k.arg is None for k in c.keywords)]
    assert isinstance(call.func, ast.Name)
    return builder.__globals__[call.func.id], {k.arg for k in call.keywords} - {None}


def test_there_are_builders():
    assert len(BUILDERS) > 100
    assert sum(options(builder) is not None for builder in BUILDERS) > 30


@pytest.mark.parametrize(
    "builder", [b for b in BUILDERS if options(b) is not None], ids=lambda b: b.__name__
)
def test_options_are_the_constructors_keywords_but_those_that_the_builder_gives(builder):
    kind, given = call_that_hands_on(builder)
    assert options(builder) == {n: a for n, a in keywords(kind).items() if n not in given}
