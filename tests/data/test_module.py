import ast
import importlib
import inspect
import subprocess
import sys
import textwrap
import typing
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from zoo.data.graphs.karate import KarateClub
from zoo.data.images.digits import Digits
from zoo.data.images.image_folder import ImageFolder
from zoo.data.masks.shapes import Shapes
from zoo.data.module import DataModule
from zoo.data.sequences.sines import NoisySine
from zoo.data.sequences.synthetic import AddingProblem, Parity, TokenPairs
from zoo.data.sequences.synthetic_eeg import SyntheticEEG
from zoo.data.tabular.diabetes import Diabetes
from zoo.data.text.text import StandardLibrary, TinyShakespeare

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "data").glob("*.yaml"))
MODULES = [
    (name, importlib.import_module(name))
    for path in sorted((ROOT / "zoo" / "data").rglob("[a-z]*.py"))
    for name in [".".join(path.relative_to(ROOT).with_suffix("").parts)]
]
DATA_SETS = [
    kind
    for name, module in MODULES
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if kind.__module__ == name and issubclass(kind, DataModule) and not inspect.isabstract(kind)
]


def call_with_options(kind):
    """The call in a constructor that hands its `**options` on."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind.__init__))).body
    calls = [node for node in ast.walk(body) if isinstance(node, ast.Call)]
    (call,) = [call for call in calls if any(k.arg is None for k in call.keywords)]
    return call


def options_of(kind):
    """The TypedDict of the keywords that a constructor hands on, and the class that takes them."""
    for base in kind.__mro__:
        if "__init__" in vars(base):
            hints = typing.get_type_hints(base.__init__)
            variable = inspect.getfullargspec(base.__init__).varkw
            if variable is None:
                return None
            if typing.get_origin(hints[variable]) is typing.Unpack:
                function = call_with_options(base).func
                is_class = isinstance(function, ast.Name)  # else: super().__init__
                scope = sys.modules[base.__module__]
                taker = getattr(scope, function.id) if is_class else base.__mro__[1]
                return typing.get_args(hints[variable])[0], taker
    raise AssertionError(kind)


def arguments_of(kind):
    """Name to (annotation, default) of all that a constructor takes, handed on or not."""
    hints = typing.get_type_hints(kind.__init__)
    found = {
        name: (hints[name], parameter.default)
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    if options := options_of(kind):
        taken = arguments_of(options[1])
        found |= {name: taken[name] for name in typing.get_type_hints(options[0])}
    return found


# Of a class whose defaults another configuration shows.
VARIANTS = {
    *("imagenet", "karate_links", "random_graph_models", "reverse", "sorting"),
    "weisfeiler_lehman",
}


def test_batches_before_setup_are_refused_in_a_sentence():
    with pytest.raises(RuntimeError, match=r"Digits.setup\(\) must be called before its batches"):
        Digits().batches("train", 0)


def test_an_unknown_split_is_refused_with_those_there_are():
    module = KarateClub()
    module.setup()
    with pytest.raises(ValueError, match="split must be one of train, val, test, not 'valid'"):
        module.batches("valid", 0)


def test_facts_that_only_the_data_know_are_refused_before_setup():
    for module in (ImageFolder("x"), StandardLibrary(), TinyShakespeare()):
        with pytest.raises(RuntimeError, match="setup"):
            module.facts()
        assert module.resolved() == {}


@pytest.mark.parametrize("make", [Digits, Diabetes, KarateClub, StandardLibrary])
def test_splits_are_known_before_setup_and_are_the_loaders_after(make):
    module = make()
    splits = module.splits
    module.setup()
    assert tuple(module.loaders) == splits
    for split in splits:
        assert module.num_batches(split) == len(list(module.batches(split, 0))) > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_begins_with_a_comment_and_fits_its_target(path):
    assert path.read_text().startswith("# ")
    config = OmegaConf.create({"data": OmegaConf.load(path), "paths": {"data_dir": "elsewhere"}})
    arguments = OmegaConf.to_container(config.data, resolve=True)
    module, _, name = arguments.pop("_target_").rpartition(".")
    target = getattr(importlib.import_module(module), name)
    parameters = arguments_of(target)
    assert set(arguments) == set(parameters)
    target(**arguments)
    assert arguments.get("root", "elsewhere") == "elsewhere"
    if path.stem in VARIANTS:
        return
    for name, (_, default) in parameters.items():
        if default is not inspect.Parameter.empty and name != "root":
            given = arguments[name]
            assert (tuple(given) if isinstance(default, tuple) else given) == default, name


def test_there_is_a_config_for_each_data_set():
    targets = {OmegaConf.load(path)["_target_"] for path in CONFIGS}
    assert {f"{kind.__module__}.{kind.__name__}" for kind in DATA_SETS} == targets


@pytest.mark.parametrize("kind", DATA_SETS, ids=lambda kind: kind.__name__)
def test_options_are_those_arguments_of_the_base_that_a_constructor_does_not_fix(kind):
    if (options := options_of(kind)) is None:
        return
    handed_on, base = typing.get_type_hints(options[0]), options[1]
    taken = arguments_of(base)
    assert handed_on == {name: taken[name][0] for name in handed_on}
    fixed = {keyword.arg for keyword in call_with_options(kind).keywords if keyword.arg}
    assert set(taken) == set(handed_on) | fixed


@pytest.mark.parametrize("kind", DATA_SETS, ids=lambda kind: kind.__name__)
def test_what_a_stored_run_may_change_are_arguments(kind):
    for name in kind.changeable:
        assert name.partition(".")[0] in arguments_of(kind)


def test_artifacts_come_back_as_the_vocabularies_that_they_were(tmp_path):
    module = StandardLibrary()
    module.setup()
    for name, text in module.artifacts().items():
        (tmp_path / name).write_text(text)
    again = StandardLibrary()
    again.load_artifacts(tmp_path)
    assert list(again.artifacts()) == ["vocabulary.json"]
    assert again.artifacts() == module.artifacts()


def test_artifacts_that_are_damaged_or_strange_are_named(tmp_path):
    KarateClub().load_artifacts(tmp_path)
    (tmp_path / "vocabulary.json").write_text("{}")
    with pytest.raises(ValueError, match=r"vocabulary.json cannot be read .* restore it"):
        StandardLibrary().load_artifacts(tmp_path)
    with pytest.raises(ValueError, match=r"vocabulary.json .*KarateClub has no vocabulary"):
        KarateClub().load_artifacts(tmp_path)


PROGRAM = """
import importlib, sys
import torch, zoo
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
heavy = {"torchvision", "sklearn", "scipy", "networkx", "PIL", "matplotlib"}
new = set(sys.modules) - before
print(sorted(heavy & new))
print(sorted(n for n in new if n.startswith("zoo.") and not n.startswith("zoo.data")))
"""


def test_importing_all_modules_imports_nothing_heavy_and_nothing_else_of_ours():
    names = [name for name, _ in MODULES]
    command = [sys.executable, "-c", PROGRAM, *names]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["[]", "[]"]


DRAWN = [
    AddingProblem(num_samples=50, batch_size=8),
    Diabetes(batch_size=8),
    Digits(image_size=8),
    NoisySine(num_samples=50, batch_size=8),
    Parity(num_samples=50, eval_samples=20, batch_size=8),
    Shapes(train_size=50, val_size=5, test_size=5, image_size=16, batch_size=8),
    SyntheticEEG(num_samples=60),
    TokenPairs(num_samples=50, eval_samples=20, batch_size=8),
]


@pytest.mark.parametrize("module", DRAWN, ids=lambda module: type(module).__name__)
def test_drop_last_omits_the_smaller_training_batch_and_no_other(module):
    module.setup()
    kept = [module.num_batches(split) for split in module.splits]
    module.drop_last = True
    if isinstance(module, Shapes):
        module.tiling = replace(module.tiling, drop_last=True)
    module.setup()
    assert [module.num_batches(split) for split in module.splits] == [kept[0] - 1, *kept[1:]]


@pytest.mark.parametrize("module", [*DRAWN, KarateClub()], ids=lambda module: type(module).__name__)
def test_modules_are_set_up_with_their_part_of_the_world(module):
    counts = {}
    for part in ((0, 1), (0, 2), (1, 2)):
        module.setup(part=part)
        for split in module.splits:
            batches = [batch for batch in module.batches(split, 0) if batch is not None]
            rows = [
                batch.mask.sum() if hasattr(batch, "mask") else len(batch[0]) for batch in batches
            ]
            counts.setdefault(split, []).append(int(sum(rows)))
    for whole, first, second in counts.values():
        assert first + second == whole and min(first, second) > 0
