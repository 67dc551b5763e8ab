"""Whether requirements.lock fits pyproject.toml, and make keeps environments apart."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LINUX = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}


def locked_lines():
    """Each pin with its marker and hashes, in one line."""
    text = (ROOT / "requirements.lock").read_text("utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if not line.startswith("#")]


def pins():
    return [Requirement(line.split(" --hash=")[0]) for line in locked_lines()]


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def on(python):
    return {**LINUX, "python_version": python, "python_full_version": f"{python}.0"}


def test_every_line_of_the_lock_is_a_published_version_with_hashes():
    pin = r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [^:/@\\#]+)?"  # no build of one's own, such as +cpu
    for line in locked_lines():
        requirement, *hashes = re.split(r"\s+--hash=", line)
        assert re.fullmatch(pin, requirement.strip()), line
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", h) for h in hashes), line


def test_the_lock_names_no_place():
    text = (ROOT / "requirements.lock").read_text("utf-8")
    assert not re.search(r"[/@]|index|find-links", text)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_has_every_dependency_once_at_a_version_that_is_admitted(python):
    assert project()["requires-python"] == ">=3.11,<3.14"
    locked = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate(on(python)):
            name = canonicalize_name(pin.name)
            assert name not in locked, f"{name} has two versions"
            (specifier,) = pin.specifier
            locked[name] = Version(specifier.version)
    asked = project()["dependencies"] + project()["optional-dependencies"]["dev"]
    for dependency in map(Requirement, asked):
        version = locked[canonicalize_name(dependency.name)]
        assert dependency.specifier.contains(version), f"{dependency} and not {version}"


def test_the_build_needs_nothing_beyond_the_lock():
    locked = {canonicalize_name(pin.name): pin.specifier for pin in pins()}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    for requirement in map(Requirement, needed):
        (specifier,) = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(specifier.version)


def make(*words):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # Without what a make that runs these tests was told.
    told = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "PYTHON", "TORCH", "LOCKED")
    env = {name: value for name, value in os.environ.items() if name not in told}
    command = ["make", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_every_choice_of_interpreter_torch_and_lock_has_an_environment_of_its_own():
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    choices = {
        "PYTHON=python3": ".venv",
        "PYTHON=python3 LOCKED=0": ".venv",
        "PYTHON=python3 LOCKED=1": ".venv-locked",
        "PYTHON=python3 TORCH=2.11.0": ".venv-torch-2.11.0",
        f"PYTHON={sys.executable}": f".venv-python{version}",
        f"PYTHON={sys.executable} LOCKED=1": f".venv-python{version}-locked",
        f"PYTHON={sys.executable} TORCH=2.11.0": f".venv-python{version}-torch-2.11.0",
    }
    for words, folder in choices.items():
        assert make("--dry-run", "clean", *words.split()).stdout == f"rm -rf {folder}\n"


def test_another_torch_than_the_locks_is_refused_in_one_line():
    done = make("test", "LOCKED=1", "TORCH=2.11.0", "PYTHON=python3")
    assert done.returncode == 2
    assert done.stdout == (
        "error: LOCKED=1 has the torch of requirements.lock; leave out LOCKED=1 or TORCH=2.11.0\n"
    )
    assert not (ROOT / ".venv-torch-2.11.0-locked").exists()
