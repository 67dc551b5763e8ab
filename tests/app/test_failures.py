"""From exceptions to exit codes."""

import importlib
import inspect
import pickle
import pkgutil
import signal

import pytest
import torch

import zoo
from zoo.app.failures import failure
from zoo.config.check import Mismatch
from zoo.config.compose import compose
from zoo.config.errors import ConfigError
from zoo.training.interruption import Interrupted
from zoo.training.run_folder import RunFolderError


class OutOfMemoryError(RuntimeError):
    """Not torch's."""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("seed=x:\n  must be an integer"), 2, "error: seed=x: must be an integer"),
        (Interrupted(signal.SIGTERM), 143, "interrupted by SIGTERM"),
        (KeyboardInterrupt(), 130, "stopped at once; nothing is saved"),
        (RunFolderError("it is in use"), 1, "error: it is in use"),
        (FileNotFoundError(2, "No such file", "a"), 1, "error: No such file (a)"),
    ],
)
def test_what_went_wrong_is_a_line_and_a_code(error, code, text):
    assert failure(error) == (code, text)


def test_what_was_stopped_says_what_is_saved_and_how_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a run"
    error = Interrupted(signal.SIGTERM)
    error.step, error.run_folder = 1200, folder
    assert failure(error) == (143, "interrupted by SIGTERM at step 1,200")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").touch()
    error.add_note("go on with it")
    said = "interrupted by SIGTERM at step 1,200; the state is saved\ngo on with it"
    assert failure(error) == (143, said)
    at_once = KeyboardInterrupt()
    at_once.run_folder = folder
    assert failure(at_once) == (130, "stopped at once; the last checkpoint stands")


def test_an_interruption_survives_the_way_to_another_process():
    error = Interrupted(signal.SIGINT)
    error.step = 3
    again = pickle.loads(pickle.dumps(error))
    assert (again.exit_code, str(again)) == (130, "interrupted by SIGINT at step 3")


def test_a_full_device_is_known_by_its_class_and_not_by_a_name():
    code, text = failure(torch.OutOfMemoryError("CUDA out of memory"))
    assert code == 1 and "data.batch_size" in text
    code, text = failure(OutOfMemoryError("another"))
    assert code == 1 and "batch_size" not in text and text.endswith("OutOfMemoryError: another")


def exceptions():
    """Every class of ours that can be raised."""
    for module in pkgutil.walk_packages(zoo.__path__, "zoo."):
        for kind in vars(importlib.import_module(module.name)).values():
            is_error = inspect.isclass(kind) and issubclass(kind, BaseException)
            if is_error and kind.__module__.startswith("zoo."):
                yield kind


ARGUMENTS = {Interrupted: (signal.SIGINT,), Mismatch: ("seed", 1, "text")}


@pytest.mark.parametrize("kind", sorted(set(exceptions()), key=str), ids=lambda kind: kind.__name__)
def test_what_a_job_raises_in_another_process_arrives_in_this_one(kind):
    error = kind(*ARGUMENTS.get(kind, ("what",)))
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is kind
    assert (str(arrived), vars(arrived)) == (str(error), vars(error))


def test_a_network_too_large_for_memory_is_no_wrong_configuration():
    recipe = compose(["model=mlp", "data=digits", "task=classification"])
    # More bytes than there are addresses.
    sizes = {"in_features": 64, "num_classes": 10, "hidden_sizes": (2**40,)}
    model = recipe.model.replaced(sizes)
    with pytest.raises(ConfigError) as caught:
        model.build()
    code, text = failure(caught.value)
    assert code == 1
    assert text.startswith("error: this computer has too little memory (")
    assert "; use a smaller model or data.batch_size" in text
