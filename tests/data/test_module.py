import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from zoo.data.graphs.graph import KarateClub
from zoo.data.images.digits import Digits
from zoo.data.images.image_folder import ImageFolder
from zoo.data.module import DataModule
from zoo.data.tabular.diabetes import Diabetes
from zoo.data.text.text import StandardLibrary, TinyShakespeare

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "data").glob("*.yaml"))
# Of a class whose defaults another configuration shows.
VARIANTS = {"imagenet", "reverse", "sorting"}


def test_batches_before_setup_are_refused_in_a_sentence():
    with pytest.raises(RuntimeError, match=r"Digits.setup\(\) must be called before its batches"):
        Digits().batches("train", 0)


def test_an_unknown_split_is_refused_with_those_there_are():
    module = KarateClub()
    module.setup()
    with pytest.raises(ValueError, match="split must be one of train, val, test, not 'valid'"):
        module.batches("valid", 0)


def test_sizes_that_only_the_data_know_are_refused_before_setup():
    for module in (ImageFolder("x"), StandardLibrary(), TinyShakespeare()):
        with pytest.raises(RuntimeError, match="setup"):
            module.sizes()
        assert module.resolved() == {}


@pytest.mark.parametrize("make", [Digits, Diabetes, KarateClub, StandardLibrary])
def test_splits_are_known_before_setup_and_are_the_loaders_after(make):
    module = make()
    splits = module.splits
    module.setup()
    assert tuple(module.loaders) == splits
    for split in splits:
        assert module.num_batches(split) == len(list(module.batches(split, 0))) > 0


def parameters(target):
    """A constructor's parameters by name, with those that it hands on to its bases."""
    found = {}
    for owner in target.__mro__:
        if "__init__" in vars(owner):
            own = list(inspect.signature(owner.__init__).parameters.values())[1:]
            found = {p.name: p for p in own if p.kind is not p.VAR_KEYWORD} | found
            if not any(p.kind is p.VAR_KEYWORD for p in own):
                break
    return found


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_begins_with_a_comment_and_fits_its_target(path):
    assert path.read_text().startswith("# ")
    config = OmegaConf.create({"data": OmegaConf.load(path), "paths": {"data_dir": "elsewhere"}})
    arguments = OmegaConf.to_container(config.data, resolve=True)
    module, _, name = arguments.pop("_target_").rpartition(".")
    target = getattr(importlib.import_module(module), name)
    assert set(arguments) == set(parameters(target))
    target(**arguments)
    assert arguments.get("root", "elsewhere") == "elsewhere"
    if path.stem in VARIANTS:
        return
    for parameter in parameters(target).values():
        if parameter.default is not parameter.empty and parameter.name != "root":
            assert arguments[parameter.name] == parameter.default, parameter.name


def test_there_is_a_config_for_each_data_set():
    targets = {OmegaConf.load(path)["_target_"] for path in CONFIGS}
    for path in sorted((ROOT / "zoo" / "data").glob("[a-z]*.py")):
        module = importlib.import_module(f"zoo.data.{path.stem}")
        for name, found in inspect.getmembers(module, inspect.isclass):
            ours = found.__module__ == module.__name__ and issubclass(found, DataModule)
            if ours and not inspect.isabstract(found):
                assert f"{module.__name__}.{name}" in targets


PROGRAM = """
import importlib, sys
import torch
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(f"zoo.data.{name}")
from zoo.data.tabular.diabetes import Diabetes
from zoo.data.images.digits import Digits
Digits().setup()
Diabetes().setup()
heavy = {"torchvision", "sklearn", "scipy", "networkx", "PIL", "matplotlib"}
print(sorted(heavy & (set(sys.modules) - before)))
print(sorted(n for n in sys.modules if n.startswith("zoo.") and not n.startswith("zoo.data")))
"""


def test_importing_all_modules_and_setting_up_digits_imports_nothing_heavy_and_nothing_of_ours():
    names = [path.stem for path in (ROOT / "zoo" / "data").glob("[a-z]*.py")]
    command = [sys.executable, "-c", PROGRAM, *names]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["[]", "[]"]
