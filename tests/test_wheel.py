"""The package as users install it: the wheel has all it needs and works without the repository."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def checked(*words, **options):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the wheel and with the packages, but not the project, of this one."""
    place = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    checked(*pip, "wheel", "--no-build-isolation", "--no-deps", "--quiet", "-w", place, ROOT)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "venv", with_pip=False)
    python = place / "venv" / "bin" / "python"
    checked(*pip, "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    site = Path(checked(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    # A plain line of a .pth file: the .pth of an editable installation behind it is not followed.
    packages = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    Path(str(site).strip(), "packages.pth").write_text("\n".join(packages) + "\n")
    return place / "venv" / "bin"


def outside(place, **environment):
    """Options of a process that stands in a folder and sees nothing of this repository."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ZOO_DATA_DIR")}
    return {"cwd": place, "env": kept | environment}


def test_the_wheel_trains_and_evaluates_from_any_folder(installed, tmp_path):
    words = ("trainer.steps=2", "trainer.epochs=null", "logger.tensorboard=false")
    out = checked(installed / "zoo-train", *words, **outside(tmp_path))
    run = out.splitlines()[-1]
    assert run.startswith("runs/lenet_digits/")
    assert (tmp_path / run / "results.json").is_file()
    # The commands that are offered are those that work here.
    assert f"zoo-evaluate run={run}" in out and "evaluate.py" not in out
    assert "data in data" in out
    assert "accuracy" in checked(installed / "zoo-evaluate", f"run={run}", **outside(tmp_path))
    script = f"import zoo; model, data = zoo.load({run!r}); print(zoo.__file__)"
    assert str(installed.parent) in checked(installed / "python", "-c", script, **outside(tmp_path))


def test_data_are_where_the_environment_says(installed, tmp_path):
    words = ("trainer.steps=1", "trainer.epochs=null", "logger.tensorboard=false")
    options = outside(tmp_path, ZOO_DATA_DIR="elsewhere")
    assert "data in elsewhere" in checked(installed / "zoo-train", *words, **options)


def test_the_wheel_has_every_configuration_and_lists_them(installed, tmp_path):
    configs = installed.parent.glob("lib/python*/site-packages/zoo/configs/**/*.yaml")
    names = {f.parts[f.parts.index("configs") + 1 :] for f in configs}
    here = (ROOT / "configs").rglob("*.yaml")
    assert names == {f.relative_to(ROOT / "configs").parts for f in here}
    out = checked(installed / "zoo-train", "--help", **outside(tmp_path))
    assert "lenet_digits" in out
