"""What may know what: read from the imports, so that it stays true."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "zoo"
MODULES = sorted(ZOO.rglob("*.py"))
ENTRY_POINTS = [ROOT / "train.py", ROOT / "evaluate.py", *sorted((ROOT / "scripts").glob("*.py"))]

SLOW = {
    *("torchvision", "torchmetrics", "matplotlib", "sklearn", "networkx", "scipy"),
    *("tokenizers", "sacrebleu", "transformers"),
}
NO_TORCH = [
    "zoo",
    "zoo.training.settings",
    "zoo.config.check",
    "zoo.config.errors",
    "zoo.config.help",
    "zoo.config.command_line",
    "zoo.config.entry",
    "zoo.config.build",
    "zoo.config.compose",
]


def name_of(file):
    """The dotted name of a module's file."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree, package):
    """Every module that a piece of code imports, relative imports resolved."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: -node.level + 1 or None], base]).strip(".")
            # `from zoo import models` names the module zoo.models.
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "zoo" else {base}
    return found


def imports(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = ".".join(file.parent.relative_to(ROOT).parts)
    return imports_of(tree, package)


def imports_at_start(file):
    """What importing the module itself imports: not what its functions or type checkers do."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = ".".join(file.parent.relative_to(ROOT).parts)
    found = set()
    queue = list(tree.body)
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= imports_of(node, package)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            queue += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            queue += ast.iter_child_nodes(node)
    return found


def within(name, *packages):
    return any(name == p or name.startswith(f"{p}.") for p in packages)


def files_of(package):
    return sorted((ZOO / package).rglob("*.py"))


def strangers(file, *allowed):
    """What a module imports of the zoo beside the packages allowed to it."""
    return {n for n in imports(file) if within(n, "zoo") and not within(n, *allowed)}


def third_party(file):
    roots = {name.partition(".")[0] for name in imports(file)}
    return roots - set(sys.stdlib_module_names) - {"zoo"}


@pytest.mark.parametrize("file", [*files_of("models"), *files_of("layers")], ids=name_of)
def test_models_import_only_torch_layers_and_their_own_field(file):
    field = name_of(file).rpartition(".")[0]
    assert not strangers(file, "zoo.layers", field)
    assert third_party(file) <= {"torch"}


@pytest.mark.parametrize("file", files_of("tasks"), ids=name_of)
def test_tasks_import_no_model_no_data_and_no_trainer(file):
    assert not strangers(file, "zoo.tasks", "zoo.layers")


@pytest.mark.parametrize("file", files_of("training"), ids=name_of)
def test_training_knows_of_tasks_only_the_interface(file):
    assert not strangers(file, "zoo.training", "zoo.tasks.task")


@pytest.mark.parametrize("file", files_of("data"), ids=name_of)
def test_data_import_nothing_of_ours(file):
    assert not strangers(file, "zoo.data")


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_hydra_appears_in_the_configuration_only(file):
    if not within(name_of(file), "zoo.config"):
        assert not third_party(file) & {"hydra", "omegaconf"}


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_only_the_entry_points_and_what_builds_a_run_see_all(file):
    seeing_all = "zoo.run", "zoo.predict", "zoo.config"
    if not within(name_of(file), *seeing_all):
        assert not {n for n in imports_at_start(file) if within(n, *seeing_all)}


@pytest.mark.parametrize("file", [*MODULES, *ENTRY_POINTS[:2]], ids=lambda f: f.name)
def test_slow_packages_are_imported_where_they_are_needed_only(file):
    assert not {name.partition(".")[0] for name in imports_at_start(file)} & SLOW


@pytest.mark.parametrize("file", [f for f in MODULES if f.name == "__init__.py"], ids=name_of)
def test_packages_are_empty(file):
    if file.parent != ZOO:
        assert file.read_text() == ""


@pytest.mark.parametrize("folder", sorted({f.parent for f in MODULES}), ids=lambda f: f.name)
def test_every_folder_of_modules_is_a_package(folder):
    assert (folder / "__init__.py").exists()


def test_modules_that_answer_mistakes_import_no_torch():
    script = f"""
import importlib, sys
for name in {NO_TORCH!r}:
    importlib.import_module(name)
    heavy = {{"torch", "torchvision", "tensorboard", "numpy", "sklearn"}} & set(sys.modules)
    assert not heavy, (name, heavy)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_help_version_and_words_need_no_hydra():
    script = """
import sys
import zoo.config.command_line, zoo.config.entry, zoo.config.errors, zoo.config.help
assert not {"hydra", "omegaconf", "yaml", "torch"} & set(sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_map_of_the_program_fits_on_a_page():
    assert len((ROOT / "train.py").read_text().splitlines()) < 80


@pytest.mark.parametrize("file", [f for f in MODULES if f.name != "__init__.py"], ids=name_of)
def test_every_module_says_what_it_is(file):
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


def test_imports_are_read_as_they_are_meant():
    code = """
import torch.nn
from zoo import models
from . import other
from .near import thing
if TYPE_CHECKING:
    import sklearn
def function():
    import scipy
"""
    found = imports_of(ast.parse(code), "zoo.tasks")
    assert {"torch.nn", "zoo.models", "zoo.tasks", "zoo.tasks.near"} <= found
    assert {"sklearn", "scipy"} <= found
