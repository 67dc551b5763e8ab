"""What may know what: read from the imports, so that it stays true."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
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
    "zoo.app.main",
    "zoo.config.component",
    "zoo.config.recipe",
    "zoo.app.failures",
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


# What a room may import of the zoo beside itself.
ROOMS = {
    "layers": (),
    "metrics": (),
    "figures": (),
    "models": ("zoo.layers",),
    "inference": ("zoo.layers", "zoo.figures"),
    "data": (),
    "tasks": ("zoo.metrics", "zoo.figures", "zoo.inference", "zoo.layers"),
    "training": ("zoo.tasks.task", "zoo.data.module"),
    "config": ("zoo.training.settings",),
    "app": ("zoo",),
}

GROUND = ("module", "files", "folders", "download", "sampling", "splits", "tables")
# What a room of the data may import of the others beside the ground on which they all stand.
KINDS_OF_DATA = {
    "augmentation": (),
    "loading": ("augmentation",),
    "images": ("augmentation", "loading"),
    "masks": ("augmentation", "loading", "images"),
    "sequences": ("loading",),
    "text": ("loading", "sequences"),
    "graphs": ("loading", "text"),  # walks over a graph are sentences of its nodes
    "tabular": ("loading",),
    "points": ("loading",),
}


def test_every_folder_has_a_rule():
    folders = {f.parent.relative_to(ZOO).parts for f in MODULES}
    assert {parts[0] for parts in folders if parts} == set(ROOMS)
    assert {parts[1] for parts in folders if parts[1:] and parts[0] == "data"} == set(KINDS_OF_DATA)


@pytest.mark.parametrize("file", [f for f in MODULES if f.parent != ZOO], ids=name_of)
def test_rooms_import_what_they_may(file):
    room = file.relative_to(ZOO).parts[0]
    assert not strangers(file, f"zoo.{room}", *ROOMS[room])


@pytest.mark.parametrize("file", files_of("models"), ids=name_of)
def test_models_import_no_other_field(file):
    assert not strangers(file, "zoo.layers", name_of(file).rpartition(".")[0])


@pytest.mark.parametrize("file", [*files_of("models"), *files_of("layers")], ids=name_of)
def test_models_and_layers_need_torch_alone(file):
    assert third_party(file) <= {"torch"}


@pytest.mark.parametrize("file", files_of("data"), ids=name_of)
def test_kinds_of_data_import_what_they_may(file):
    parts = file.relative_to(ZOO / "data").parts
    own = (parts[0], *KINDS_OF_DATA[parts[0]]) if len(parts) > 1 else ()
    assert not strangers(file, *(f"zoo.data.{name}" for name in (*GROUND, *own)))


@pytest.mark.parametrize("file", files_of("tasks/generative"), ids=name_of)
def test_generative_tasks_import_what_all_tasks_share(file):
    shared = ("zoo.tasks.task", "zoo.tasks.prediction", "zoo.tasks.generative")
    assert not {n for n in strangers(file, *shared) if within(n, "zoo.tasks")}


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_hydra_appears_in_config_and_app_only(file):
    if not within(name_of(file), "zoo.config", "zoo.app"):
        assert not third_party(file) & {"hydra", "omegaconf"}


INTERFACES = ("data/download.py", "data/module.py", "tasks/task.py", "tasks/prediction.py")


@cache
def components():
    """Every class of models, data and tasks but the interfaces, and every target in `configs`."""
    files = [f for room in ("models", "data", "tasks") for f in files_of(room)]
    interfaces = [f for f in files if f.as_posix().endswith(INTERFACES)]
    names = classes_in(set(files) - set(interfaces)) - classes_in(interfaces)
    for file in (ROOT / "configs").rglob("*.yaml"):
        targets = re.findall(r"_target_: (zoo\.(?:models|data|tasks)\.\S+)", file.read_text())
        names |= {target.rpartition(".")[2] for target in targets}
    return names


def classes_in(files):
    trees = [ast.parse(f.read_text()) for f in files]
    return {n.name for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}


def words_of(tree):
    """The names and the words in texts of a piece of code, docstrings and other libraries aside."""
    statements = (n for n in ast.walk(tree) if isinstance(n, ast.Expr))
    docstrings = {id(n.value) for n in statements if isinstance(n.value, ast.Constant)}
    sources = (n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom))
    foreign = {
        alias.name
        for source in sources
        if not (source.module or "").startswith("zoo")
        for alias in source.names
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set() if id(node) in docstrings else set(re.findall(r"\w+", node.value))
        elif isinstance(node, ast.Name | ast.Attribute):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name.rpartition(".")[2])
    return found - foreign


@pytest.mark.parametrize("room", ["config", "app", "training"])
def test_no_name_of_a_component_stands_where_runs_are_made(room):
    files = [f for f in files_of(room) if f.name not in ("moved.py", "help.py")]
    found = {f.name: words_of(ast.parse(f.read_text())) & components() for f in files}
    assert not {name: words for name, words in found.items() if words}


def test_names_of_components_are_found():
    assert {"Classification", "MNIST", "resnet18", "Translation"} <= components()
    assert "Task" not in components()
    code = """
def use(task):
    "Not the Regression of a docstring."
    if type(task).__name__ == "Translation" or isinstance(task, tasks.Segmentation):
        from zoo.data.images.mnist import MNIST
"""
    found = words_of(ast.parse(code)) & components()
    assert found == {"Translation", "Segmentation", "MNIST"}


def test_there_is_no_circle():
    """No module imports itself by way of others, imports inside functions included."""
    known = {name_of(f): imports(f) for f in MODULES}
    graph = {n: {m for m in known if m in found and m != n} for n, found in known.items()}
    while leaves := {name for name, found in graph.items() if not found & set(graph)}:
        graph = {name: found for name, found in graph.items() if name not in leaves}
    assert not graph, sorted(graph)


def test_no_room_is_entered_by_way_of_itself():
    """Folders of the zoo import one another in one direction only."""
    arrows = {
        (name_of(f).split(".")[1], name.split(".")[1])
        for f in MODULES
        if f.parent != ZOO
        for name in imports(f)
        if within(name, "zoo") and name.count(".")
    }
    interfaces = {("training", "tasks"), ("training", "data"), ("config", "training")}
    both_ways = {(a, b) for a, b in arrows - interfaces if (b, a) in arrows and a != b}
    assert not both_ways


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
import zoo.config.command_line, zoo.app.main, zoo.config.errors, zoo.config.help
assert not {"hydra", "omegaconf", "yaml", "torch"} & set(sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_map_of_the_program_fits_on_a_page():
    assert len((ZOO / "app" / "train.py").read_text().splitlines()) < 80


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
