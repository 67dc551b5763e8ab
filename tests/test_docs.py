"""Runs what README.md, CONTRIBUTING.md and docs/ say, by the rules that CONTRIBUTING.md gives."""

import dataclasses
import importlib
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import typing
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

import evaluate
import train
import zoo
from zoo.app import main as entry
from zoo.config import help
from zoo.config.command_line import FLAGS, parse_words
from zoo.config.compose import compose
from zoo.config.errors import ConfigError
from zoo.config.overrides import expand
from zoo.data.download import DataError
from zoo.training.settings import RunSettings

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
GENERATED = ("runs", "data", "build", "dist")  # git ignores them; pages name what is below them
SHORT = {
    "trainer.epochs": "1",
    "trainer.steps": "null",
    "trainer.limit_train_batches": "2",
    "trainer.limit_eval_batches": "1",
    "paths.runs_dir": "runs",
}
LOGGED = {**SHORT, "logger.graph": "false"}  # for commands about the logger
SHORT["logger.tensorboard"] = "false"  # matplotlib takes longer than such a run
UNCHECKED = ("cd", "source", "git", "kill", "pip")  # nothing of ours is in such a command


class Block(NamedTuple):
    line: int
    language: str
    file: str  # the path behind the language, if any
    text: str


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)[ ]?([^\n]*)\n(.*?)^```$", text, re.S | re.M)
    return [Block(text[: m.start()].count("\n") + 2, m[1], m[2].strip(), m[3]) for m in found]


def prose_of(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", (ROOT / page).read_text("utf-8"), flags=re.S | re.M)


def files_of(page: str) -> dict[str, str]:
    return {block.file: block.text for block in blocks_of(page) if block.file}


class Reader:
    """Someone who types what a page says, from top to bottom, in the present folder."""

    def __init__(self, page: str, *, capsys: Any, monkeypatch: Any, tiny_run: Any) -> None:
        self.page = page
        self.capsys, self.monkeypatch, self.tiny_run = capsys, monkeypatch, tiny_run
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.output = ""

    def read(self) -> None:
        for block in blocks_of(self.page):
            if block.language == "bash":
                self.output = ""
                for number, line in enumerate(block.text.splitlines(), start=block.line):
                    self.type(line, f"{self.page}:{number}")
            elif block.language == "python" and not block.file:
                code = "\n" * (block.line - 1) + self.with_runs(block.text)
                exec(compile(code, str(ROOT / self.page), "exec"), self.namespace)
            elif block.language == "text":
                for line in block.text.splitlines():
                    said = not line.startswith("error:") or f"\n{line}" in f"\n{self.output}"
                    assert said, f"{self.page}:{block.line}: no {line!r} in:\n{self.output}"
            elif block.language == "yaml":
                yaml.safe_load(block.text)
            else:
                known = block.file or not block.language
                assert known, f"{self.page}:{block.line}: no test reads {block.language!r} blocks"

    def with_runs(self, text: str) -> str:
        """The text with a folder for each `runs/<name>/<run>`: the page's own, or a tiny run."""

        def folder(match: re.Match[str]) -> str:
            parent, sweep = Path("runs", match[1]), match[2] == "sweep"

            def found() -> list[Path]:
                return [p for p in parent.glob("*") if p.name.startswith("sweep") == sweep]

            if not found():
                shutil.copytree(self.tiny_run(match[1]), parent / ("sweep" if sweep else "tiny"))
            return str(max(found(), key=lambda path: path.stat().st_mtime))

        return re.sub(r"runs/(\w+)/<(\w+)>", folder, text)

    def type(self, line: str, where: str) -> None:
        code = re.search(r"#.*\bexit code (\d+)", line)
        words = shlex.split(self.with_runs(line), comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            command, words = words[:end], words[end + 1 :]
            found = self.command(command, where)
            captured = self.capsys.readouterr()
            self.output += captured.out + captured.err
            said = f"{where}: `{line}` ended with {found}:\n{captured.err}"
            assert found == (int(code[1]) if code else 0), said

    def command(self, words: list[str], where: str) -> int:
        while re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            self.monkeypatch.setenv(name, value)
        program, *arguments = words[1:] if words[0].endswith("python") else words
        if program == "train.py":
            return self.train(arguments)
        if program == "torchrun":
            line = parse_words(
                arguments[arguments.index("train.py") + 1 :], options=("resume",), flags=FLAGS
            )
            if "resume" not in line.options:
                compose(line.overrides)
            return 0
        if program == "evaluate.py":
            return self.evaluate(arguments)
        if program.startswith("scripts/"):
            return self.script(program, arguments, where)
        if program == "make":
            return self.make(arguments, where)
        if program == "tensorboard":
            from tensorboard.program import TensorBoard

            TensorBoard().configure(argv=words)
        elif program == "-m" and arguments[0] == "pytest":
            # Tests that a page adds are run beside this one, see read_in_a_copy.
            paths = [word for word in arguments[1:] if "/" in word]
            assert all((ROOT / path).exists() for path in paths), f"{where}: {paths}"
        else:
            assert program in UNCHECKED, f"{where}: no test knows how to check {program!r}"
        return 0

    def train(self, words: list[str]) -> int:
        """Composes the command as it stands, then runs it with less training."""
        line = parse_words(words, options=("resume",), flags=FLAGS)
        if {"--help", "--version", "--cfg"} & set(line.flags):
            return train.main(words)
        named = {word.partition("=")[0] for word in words}
        if "hydra/launcher=submitit_slurm" in words:  # Submitit has an executor without Slurm.
            words = [word for word in words if not word.startswith("hydra")]
            words.append("hydra/launcher=submitit_local")
        launcher = next((w.partition("=")[2] for w in words if w.startswith("hydra/")), "basic")
        if launcher not in ("basic", *installed_launchers()):
            words = [word for word in words if not word.startswith("hydra")]
        if "resume" in line.options:
            short = {"trainer.epochs": "2"} if "trainer.epochs" in named else {}
        else:
            short = SHORT if not any(name.startswith("logger.") for name in named) else LOGGED
            try:
                ours = [word for word in line.overrides if not word.startswith("hydra")]
                job, *_ = expand(ours)
                compose(job, config_dir=line.flags.get("--config-dir"), trusted=line.trusted)
            except ConfigError:
                short = {}  # The program itself is to say what is wrong.
        words = [word for word in words if word.partition("=")[0] not in short]
        # Of a sweep's values, two are enough.
        words = [re.sub(r"^([\w.]+=[^][(),]+,[^][(),]+),[^][()]+$", r"\1", word) for word in words]
        return self.run([*words, *(f"{key}={value}" for key, value in short.items())])

    def run(self, words: list[str]) -> int:
        missing: list[DataError] = []

        def with_data_at_hand(*arguments: Any) -> dict[str, Any]:
            try:
                return train.train(*arguments)
            except DataError as error:
                missing.append(error)
                raise

        code = entry.main(with_data_at_hand, words)
        return 0 if missing and code == 1 else code

    def evaluate(self, words: list[str]) -> int:
        for word in words:
            key, _, value = word.partition("=")
            if key in ("predict", "reconstruct", "interpolate"):
                for name in value.split(","):
                    # Neither the seed of an interpolation nor a file that the page has.
                    if not name.isdecimal() and not Path(name).exists():
                        draw(Path(name) if Path(name).suffix else Path(name, "0.png"))
        return evaluate.main(words)

    def script(self, path: str, arguments: list[str], where: str) -> int:
        self.monkeypatch.setattr(sys, "argv", [path, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / path), run_name="__main__")
        usage = self.capsys.readouterr().out
        flags = [word.split("=")[0] for word in arguments if word.startswith("-")]
        assert all(flag in usage for flag in flags), f"{where}: {path} takes none of {flags}"
        return ended.value.code or 0

    def make(self, arguments: list[str], where: str) -> int:
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
        for argument in arguments:
            name, equals, value = argument.partition("=")
            if name == "ARGS":
                return self.train(shlex.split(value))
            assert equals or name in targets, f"{where}: there is no target {name!r}"
        return 0


def installed_launchers() -> list[str]:
    plugins = {"joblib": "hydra_joblib_launcher", "submitit_local": "hydra_submitit_launcher"}
    if find_spec("hydra_plugins") is None:
        return []
    return [name for name, package in plugins.items() if find_spec(f"hydra_plugins.{package}")]


def draw(path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (28, 28), 255).save(path)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A finished run of an experiment, with as little training as there can be."""
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("tiny")
            short = SHORT | {"experiment": name, "paths.runs_dir": str(folder)}
            assert train.main([f"{key}={value}" for key, value in short.items()]) == 0
            (made[name],) = folder.glob("*/*")
        return made[name]

    return run


@pytest.fixture
def offline(monkeypatch):
    """A test that downloads would test the network; data that are at hand are used."""

    def refuse(*arguments: Any) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The threads of a tiny step wait for one another, and on a busy machine for long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_packages(tmp_path, monkeypatch) -> Iterator[None]:
    def forget() -> None:
        for name in [name for name in sys.modules if name.startswith("my_")]:
            del sys.modules[name]

    forget()  # Other tests have packages of these names, too.
    monkeypatch.syspath_prepend(tmp_path)
    yield
    forget()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_and_programs_of_a_page_work(
    page, tmp_path, capsys, monkeypatch, tiny_run, offline, one_thread, own_packages
):
    files = files_of(page)
    inside = [name for name in files if (ROOT / Path(name).parts[0]).exists()]
    if inside and os.environ.get("ZOO_DOCS_COPY") != page:
        read_in_a_copy(page, tmp_path / "copy", files)
        return
    folder = ROOT if inside else tmp_path
    write(folder, files)
    monkeypatch.chdir(folder)
    Reader(page, capsys=capsys, monkeypatch=monkeypatch, tiny_run=tiny_run).read()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def read_in_a_copy(page: str, copy: Path, files: dict[str, str]) -> None:
    """A page that adds files to the project is followed in a copy of it, its own tests included."""
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
        elif not path.name.startswith(".") and path.name not in GENERATED:
            shutil.copytree(
                path, copy / path.name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
    write(copy, files)
    name = test_commands_and_programs_of_a_page_work.__name__
    tests = [f"tests/test_docs.py::{name}[{page}]", *(f for f in files if f.startswith("tests/"))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        env={**os.environ, "ZOO_DOCS_COPY": page},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", [page for page in PAGES if files_of(page)])
def test_files_that_a_page_shows_are_linted_like_all_others(page, tmp_path):
    pytest.importorskip("ruff", reason="ruff is not installed")
    write(tmp_path, files_of(page))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ours = ["--config", 'lint.isort.known-first-party=["zoo"]', "--no-cache", "."]
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, *ours]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.M)
            assert anchor in map(slug, headings), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_setting_and_object_that_a_page_names_exists(page):
    top = {path.name for path in ROOT.iterdir()} - set(GENERATED)
    for span in re.findall(r"`([^`\n]+)`", prose_of(page)):
        for name in re.findall(r"(?<![\w./<>-])[\w.*-]+(?:/[\w.*-]+)*/?", span):
            first = name.split("/")[0]
            if first in top and "<" not in span and name not in files_of(page):
                assert list(ROOT.glob(name.rstrip("/"))), f"{page}: there is no {name}"
        if re.fullmatch(r"zoo(\.\w+)+", span):
            assert exists(span), f"{page}: there is no {span}"
        if key := re.fullmatch(r"((?:trainer|callbacks|logger|paths)(?:\.[a-z_]+)+)(=.*)?", span):
            assert is_setting(key[1]), f"{page}: there is no setting {key[1]}"


def exists(name: str) -> bool:
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        with suppress(ModuleNotFoundError):
            found: Any = importlib.import_module(".".join(parts[:depth]))
            for part in parts[depth:]:
                found = getattr(found, part, None)
            return found is not None
    return False


def is_setting(key: str) -> bool:
    kind: Any = RunSettings
    for part in key.split("."):
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        if part not in hints:
            return False
        kind = hints[part]
    return True


def test_readme_links_every_page():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [page for page in PAGES[1:] if f"({page})" not in readme] == []


def test_help_lists_every_experiment_with_a_purpose():
    for path in ROOT.glob("configs/experiment/**/*.yaml"):
        name = str(path.relative_to(ROOT / "configs" / "experiment").with_suffix(""))
        assert re.search(rf"^  {name} +\S", help.text(), re.M), name


def test_scripts_find_the_places_of_the_tables():
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in ("results", "speed"):
        assert len(re.findall(f"^<!-- {name} -->\n(?:.*\n)*?<!-- /{name} -->$", readme, re.M)) == 1


def test_citation_names_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == zoo.__version__
    assert citation["license"] == "BSD-3-Clause"
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
