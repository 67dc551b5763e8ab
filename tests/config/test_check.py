from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from zoo.config.check import Mismatch, conform, describe, settings
from zoo.config.component import check_component
from zoo.config.errors import ConfigError, as_cli_text, did_you_mean, one_line
from zoo.config.targets import locate

FITS = [
    (3, int, 3),
    (3, float, 3.0),
    (1.5, float, 1.5),
    ("a", str, "a"),
    (True, bool, True),
    (None, int | None, None),
    (3, int | None, 3),
    (3, float | int, 3.0),
    (3, int | float, 3),
    ("auto", Literal["auto"] | bool, "auto"),
    (False, Literal["auto"] | bool, False),
    ("b", Literal["a", "b"], "b"),
    (2, Literal[1, 2], 2),
    ([1, 2], tuple[float, float], (1.0, 2.0)),
    ([1, 2, 3], tuple[int, ...], (1, 2, 3)),
    ([], tuple[int, ...], ()),
    ([1], tuple, (1,)),
    ([1, "a"], list, [1, "a"]),
    ([1, 2], list[float], [1.0, 2.0]),
    ([1, 2], Sequence[int], [1, 2]),
    ((1, 2), Sequence[int], [1, 2]),
    ([[1, 2], [3]], Sequence[Sequence[int]], [[1, 2], [3]]),
    ([[1, 2]], list[tuple[int, int]], [(1, 2)]),
    ({"a": 1}, dict[str, float], {"a": 1.0}),
    ({"a": 1}, Mapping[str, float], {"a": 1.0}),
    ({"a": 1}, dict, {"a": 1}),
    ({"a": {"b": 1}}, dict[str, dict[str, Any]], {"a": {"b": 1}}),
    (3, float | Tensor, 3.0),
    ([0.9, 0.99], tuple[float | Tensor, float | Tensor], (0.9, 0.99)),
    (7, float | tuple[float, float] | None, 7.0),
    ([7, 8], float | tuple[float, float] | None, (7.0, 8.0)),
    (object, Any, object),
]


@pytest.mark.parametrize(("value", "annotation", "expected"), FITS)
def test_value_that_fits_takes_the_annotated_form(value, annotation, expected):
    found = conform(value, annotation)
    assert found == expected
    assert type(found) is type(expected)


MISFITS = [
    (1.0, int, "an integer"),
    (True, int, "an integer"),
    (True, float, "a number"),
    ("1", float, "a number"),
    (10**400, float, "a number"),
    (1, str, "text"),
    (1, bool, "true or false"),
    (None, int, "an integer"),
    ("x", int | None, "an integer or null"),
    ([1], int, "an integer"),
    ({"a": 1}, int, "an integer"),
    (float("nan"), float, "a finite number"),
    (float("inf"), float | None, "a finite number"),
    (float("inf"), Any, "a finite number"),
    (1, Literal["a", "b"], "a or b"),
    (True, Literal[1, 2], "1 or 2"),
    ("aa", Literal["aab", "c"], "aab or c; did you mean 'aab'?"),
    (3, tuple[float, float], "a list of 2 (a number, a number)"),
    ([1, 2, 3], tuple[float, float], "a list of 2 (a number, a number)"),
    ("abc", Sequence[str], "a list (each text)"),
    (3, list, "a list"),
    ([1], dict[str, int], "a mapping"),
    (3, dict[str, int], "a mapping"),
    ("x", float | Tensor, "a number"),
    (3, nn.Module, "a Module (a mapping with _target_)"),
]


@pytest.mark.parametrize(("value", "annotation", "allowed"), MISFITS)
def test_value_that_does_not_fit_is_told_what_would(value, annotation, allowed):
    with pytest.raises(Mismatch) as caught:
        conform(value, annotation, key="k")
    assert caught.value.allowed == allowed
    assert caught.value.key == "k"


INSIDE = [
    ([1, "x"], list[int], "k[1]"),
    ([1, "x"], tuple[int, int], "k[1]"),
    ([1, "x"], tuple[int, int] | None, "k[1]"),
    ([[1], ["x"]], Sequence[Sequence[int]], "k[1][0]"),
    ({"a": "x"}, dict[str, int], "k.a"),
    ({"a": {"b": "x"}}, dict[str, dict[str, float]], "k.a.b"),
    ([0.9, float("nan")], tuple[float, float], "k[1]"),
]


@pytest.mark.parametrize(("value", "annotation", "key"), INSIDE)
def test_refusal_points_at_the_value_inside(value, annotation, key):
    with pytest.raises(Mismatch) as caught:
        conform(value, annotation, key="k")
    assert caught.value.key == key


def test_key_of_a_mapping_is_checked_too():
    with pytest.raises(Mismatch):
        conform({3: 4}, dict[str, int])


def test_annotations_are_described_in_words():
    assert describe(tuple[int, ...]) == "a list (each an integer)"
    assert describe(Literal["auto"] | int | None) == "auto or an integer or null"
    assert describe(float | Tensor) == "a number"
    assert describe(Sequence[float] | None) == "a list (each a number) or null"


@dataclass(kw_only=True)
class Inner:
    size: int = 1

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size must be at least 1, not {self.size}")


@dataclass(kw_only=True)
class Outer:
    name: str = "a"
    inner: Inner = field(default_factory=Inner)


def test_dataclasses_are_made_from_plain_mappings():
    assert settings(Outer, {"inner": {"size": 3}}) == Outer(inner=Inner(size=3))
    assert settings(Outer, {}) == Outer()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"inner": {"sise": 3}},
            "outer.inner.sise=3: there is no such setting; did you mean 'outer.inner.size'?",
        ),
        ({"inner": {"size": "x"}}, "outer.inner.size='x': must be an integer"),
        ({"inner": {"size": 0}}, "outer.inner.size must be at least 1, not 0"),
        ({"inner": 3}, "outer.inner=3: must be a mapping of its settings"),
        ({"inner": None}, "outer.inner=null: must be a mapping of its settings"),
        ({"name": 3}, "outer.name=3: must be text (quote it: outer.name=\"'3'\")"),
        ({3: 4}, "outer.3=4: there is no such setting; allowed: inner, name"),
    ],
)
def test_settings_name_the_full_key(values, message):
    with pytest.raises(ConfigError) as caught:
        settings(Outer, values, "outer")
    assert str(caught.value) == message


def test_values_are_written_as_on_a_command_line():
    assert (
        as_cli_text({"a": [1, 2.5, None], "b": (True, "x")})
        == "{a: [1, 2.5, null], b: [true, 'x']}"
    )
    assert len(as_cli_text("x" * 1000)) == 200
    assert one_line("a\n   b\tc ") == "a b c"


def test_nearest_name_is_offered_and_all_where_none_is_near():
    assert (
        did_you_mean("epoch", ["steps", "epochs"], "trainer.") == "did you mean 'trainer.epochs'?"
    )
    assert did_you_mean("zzz", ["b", "a"]) == "allowed: a, b"
    assert did_you_mean("zzz", []) == "there is none"


def test_target_is_found_by_any_path_to_it_but_judged_by_where_it_is_defined():
    assert locate("torch.nn.Linear", "k") is nn.Linear
    assert locate("torch.nn.modules.linear.Linear", "k") is nn.Linear
    assert locate("zoo.models.mlp.nn.Linear", "k") is nn.Linear
    with pytest.raises(ConfigError, match=r"is defined in torch\.serialization"):
        locate("zoo.app.build.torch.load", "k")
    with pytest.raises(ConfigError, match=r"is defined in pathlib"):
        locate("zoo.app.build.Path", "k")


def test_prefix_is_that_of_a_package_and_not_of_a_name(tmp_path, monkeypatch):
    (tmp_path / "zoological.py").write_text("from torch import nn\nclass Net(nn.Module): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="only what is under"):
        locate("zoological.Net", "k", ["zoo_logical"])
    assert locate("zoological.Net", "k", ["zoological"]).__name__ == "Net"


def test_component_is_built_with_its_arguments_in_the_annotated_form():
    node = {"_target_": "torch.optim.SGD", "lr": 1, "momentum": 0.5}
    arguments = check_component(node, "optimizer", "optimizer").arguments
    assert arguments == {"lr": 1.0, "momentum": 0.5}
    assert type(arguments["lr"]) is float
    adam = {"_target_": "torch.optim.Adam", "betas": [0.5, 0.9]}
    assert check_component(adam, "optimizer", "optimizer").arguments == {"betas": (0.5, 0.9)}
    linear = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
    model = check_component(linear, "model", "m").build()
    assert model.weight.shape == (3, 2)


MLP = {"_target_": "zoo.models.mlp.MLP", "in_features": "auto", "num_classes": 2}


def test_auto_waits_for_a_fact_of_the_data():
    component = check_component(MLP, "model", "model")
    assert component.auto == ("in_features",)
    with pytest.raises(ConfigError, match=r"model\.in_features=auto: nothing fills it here"):
        component.build()
    filled = component.fill_auto({"in_features": 64, "num_classes": 9}, "the data")
    assert filled.node == MLP | {"in_features": 64}
    assert filled.auto == ()
    assert filled.build()(torch.zeros(3, 64)).shape == (3, 2)
    assert component.auto == ("in_features",)  # itself unchanged


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"vocab_size": 3}, "the data gives no in_features (it gives vocab_size); set"),
        ({"in_features": None}, "the data gives no in_features (it gives none); set"),
        ({"in_features": "many"}, "model.in_features='many': must be an integer"),
    ],
)
def test_fact_that_is_missing_or_does_not_fit_is_named(facts, said):
    with pytest.raises(ConfigError) as caught:
        check_component(MLP, "model", "model").fill_auto(facts, "the data")
    assert said in str(caught.value)


def test_fact_that_data_do_not_have_is_null_where_null_is_allowed():
    node = {
        "_target_": "zoo.tasks.classification.Classification",
        "num_classes": 3,
        "class_names": "auto",
    }
    component = check_component(node, "task", "task")
    assert component.fill_auto({"class_names": None}, "the data").node["class_names"] is None
    filled = component.fill_auto({"class_names": ("a", "b", "c")}, "the data")
    assert filled.node["class_names"] == ["a", "b", "c"]  # as a file holds it
    assert filled.arguments["class_names"] == ("a", "b", "c")


def test_auto_is_a_value_of_its_own_where_text_is_asked_for():
    node = {"_target_": "zoo.tasks.language_modeling.LanguageModeling", "prompt": "auto"}
    component = check_component(node, "task", "task")
    assert component.auto == ()
    assert component.arguments == {"prompt": "auto"}


def test_auto_is_for_what_data_know_only():
    with pytest.raises(ConfigError, match=r"optimizer\.lr='auto': must be a number"):
        check_component({"_target_": "torch.optim.SGD", "lr": "auto"}, "optimizer", "optimizer")


def test_arguments_that_the_run_gives_are_those_that_a_class_names():
    node = {"_target_": "zoo.tasks.translation.Translation"}
    component = check_component(node, "task", "task")
    assert component.given == ("model", "source_vocabulary", "target_vocabulary")
    model = nn.Linear(1, 1)
    task = component.build(model, source_vocabulary=None, vocabulary="another's")
    assert task.model is model
    masked = {"_target_": "zoo.tasks.masked_language_modeling.MaskedLanguageModeling"}
    with pytest.raises(ConfigError, match="needs a vocabulary, and these data have none"):
        check_component(masked, "task", "task").build(model)


def test_options_of_a_group_are_kept_apart_from_the_targets_arguments():
    node = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3, "weights": "a.pth"}
    component = check_component(node, "model", "model")
    assert component.options == {"weights": "a.pth"}
    assert component.build().weight.shape == (3, 2)
    sgd = {"_target_": "torch.optim.SGD", "lr": 1, "decay_norms_and_biases": True}
    component = check_component(sgd, "optimizer", "optimizer")
    made = component.build_with(lambda *given, **named: (given, named), "network")
    assert made == ((torch.optim.SGD, "network"), {"lr": 1.0, "decay_norms_and_biases": True})


NESTED = """
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from torch import nn
from zoo.training.callbacks import Callback

class Part:
    def __init__(self, size: int = 1) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self.size = size

class BigPart(Part):
    pass

def part(size: int) -> Part:
    return BigPart(size)

def silent(size: int):
    return Part(size)

def count() -> int:
    raise RuntimeError("called")

def path() -> Path:
    raise RuntimeError("called")

class Whole(nn.Module):
    def __init__(self, part: Part | None = None, parts: Sequence[Part] = (), named: dict[str, Part]
                 | None = None, size: int = 1, place: str | Path = "", anything: Any = None,
                 untyped=None) -> None:
        super().__init__()
        self.part, self.parts, self.named = part, parts, named

def broken() -> nn.Module:
    raise RuntimeError("Trying to create tensor with negative dimension -1")
"""


@pytest.fixture
def nested(tmp_path, monkeypatch):
    (tmp_path / "nested_parts.py").write_text(NESTED)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(**arguments: Any) -> Any:
        node = {"_target_": "nested_parts.Whole", **arguments}
        return check_component(node, "model", "model", ["nested_parts"]).build()

    return make


def test_components_inside_arguments_are_built_with_the_outer_one(nested):
    whole = nested(
        part={"_target_": "nested_parts.part", "size": 3},
        parts=[{"_target_": "nested_parts.Part"}, {"_target_": "nested_parts.BigPart", "size": 2}],
        named={"a": {"_target_": "nested_parts.Part", "size": 4}},
    )
    assert type(whole.part).__name__ == "BigPart"
    assert [part.size for part in whole.parts] == [1, 2]
    assert whole.part.size == 3
    assert whole.named["a"].size == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": {"_target_": "os.system"}}, "model.part._target_=os.system: only what is under"),
        (
            {"part": {"_target_": "torch.nn.Linear"}},
            "model.part._target_=torch.nn.Linear: makes Linear, and nested_parts.Part is needed",
        ),
        (
            {"part": {"_target_": "nested_parts.Part", "sise": 3}},
            "model.part.sise=3: nested_parts.Part has no such argument; did you mean "
            "'model.part.size'?",
        ),
        (
            {"parts": [{"_target_": "nested_parts.Part", "size": "x"}]},
            "model.parts[0].size='x': must be an integer",
        ),
        (
            {"parts": {"_target_": "nested_parts.Part"}},
            "model.parts={_target_: 'nested_parts.Part'}: must be a list",
        ),
        (
            {"named": {"a": {"_target_": "nested_parts.part"}}},
            "model.named.a.size is required by nested_parts.part: model.named.a.size=<an integer>",
        ),
        ({"part": {"_target_": "nested_parts.silent", "size": 1}}, "must say which class it"),
        ({"size": {"_target_": "nested_parts.count"}}, "model.size={_target_: "),
        ({"place": {"_target_": "nested_parts.path"}}, "model.place={_target_: "),
        ({"anything": {"_target_": "nested_parts.count"}}, "model.anything={_target_: "),
        ({"untyped": {"_target_": "nested_parts.count"}}, "model.untyped={_target_: "),
        (
            {"part": {"_target_": "nested_parts.Part", "size": 0}},
            "model.part.size must be at least",
        ),
    ],
)
def test_component_inside_an_argument_is_as_strictly_checked(nested, arguments, message):
    with pytest.raises(ConfigError) as caught:
        nested(**arguments)
    assert message in str(caught.value)


def test_plain_runtime_error_of_a_constructor_is_a_refusal_and_a_failure_is_not(nested):
    with pytest.raises(ConfigError, match="model: Trying to create tensor with negative dimension"):
        check_component(
            {"_target_": "nested_parts.broken"}, "model", "model", ["nested_parts"]
        ).build()
    with pytest.raises(ConfigError, match=r"model: .*negative dimension"):
        node = {"_target_": "torch.nn.Linear", "in_features": -1, "out_features": 2}
        check_component(node, "model", "model").build()


def test_module_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import surely_not_installed\n")
    (tmp_path / "is_broken.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="needs a module that is not there: surely_not_installed"):
        locate("needs_more.Net", "model", ["needs_more"])
    with pytest.raises(ConfigError, match=r"is_broken cannot be imported \(SyntaxError"):
        locate("is_broken.Net", "model", ["is_broken"])


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "NAdam", "Adamax"])
def test_annotations_of_torchs_optimizers_are_understood(name):
    node = {"_target_": f"torch.optim.{name}", "lr": 1, "weight_decay": 0}
    component = check_component(node, "optimizer", "optimizer")
    assert component.target is getattr(torch.optim, name)
    assert component.arguments == {"lr": 1.0, "weight_decay": 0.0}


def test_callable_annotation_takes_no_component(tmp_path, monkeypatch):
    (tmp_path / "wants_callable.py").write_text(
        "from collections.abc import Callable\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, norm: Callable[..., nn.Module] | None = None): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "wants_callable.Net", "norm": {"_target_": "torch.nn.ReLU"}}
    with pytest.raises(ConfigError, match=r"model\.norm="):
        check_component(node, "model", "model", ["wants_callable"])
    assert describe(Callable).startswith("a Callable")
