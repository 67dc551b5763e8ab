"""What is in a file of weights, and what else people take for one."""

import argparse
import gzip
import json
import re

import pytest
import torch
from torch import nn

from tests.training.test_pretrained import filled, gpt_char, holds, moved, prefixed
from tests.training.tiny import normed
from zoo.models.transformer.llama import llama_char
from zoo.training.checkpoints.checkpoint import CheckpointError, read
from zoo.training.pretrained import load_pretrained

HINTS = re.compile(r"weights_only|\x1b|trust|allowlist|safe_globals|two options", re.I)


def refused(path, *more, **named):
    with pytest.raises(ValueError) as caught:
        load_pretrained(normed(), path, *more, **named)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert not HINTS.search(message)
    return message


@pytest.mark.parametrize("beside", [argparse.Namespace(lr=0.1), nn.Linear(2, 2), {"a": {1j, 2}}])
def test_file_that_is_not_plain_is_refused_in_one_sentence(beside, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": moved(), "args": beside}, path)
    if isinstance(beside, dict):
        load_pretrained(normed(), path)  # A set and a complex number are plain.
        return
    kind = type(beside)
    message = refused(path)
    assert f"holds an object of {kind.__module__}.{kind.__qualname__} beside" in message
    assert "torch.save(model.state_dict(), file)" in message
    with pytest.raises(CheckpointError, match=f"holds an object of {kind.__module__}") as caught:
        read(path)
    assert not HINTS.search(str(caught.value))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
        (b"<!DOCTYPE html>\n<html>Sign in</html>", "is a web page"),
        (b"\n <HTML><body>404</body>", "is a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
        (b"", "is empty"),
        (gzip.compress(b"weights", mtime=0), "is a compressed archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (b"GGUF" + bytes(40), "GGUF"),
        (b"\x93NUMPY" + bytes(40), "NumPy"),
    ],
)
def test_what_is_taken_for_weights_is_called_what_it_is(content, said, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    assert said in refused(path)


@pytest.mark.filterwarnings("ignore")
def test_program_of_torchscript_and_text_are_named(tmp_path):
    path = tmp_path / "program.pt"
    torch.jit.script(nn.Linear(2, 2)).save(path)
    assert "TorchScript" in refused(path)
    path.write_text("not weights")
    assert "is no file that torch.save has written" in refused(path)


WRAPPED = {
    "lightning": lambda state: {"state_dict": prefixed(state, "net.") | {"loss.w": torch.ones(3)}},
    "model": lambda state: prefixed(state, "model."),
    "deep": lambda state: prefixed(state, "model.backbone."),
    "ddp": lambda state: prefixed(state, "module.net."),
    "compiled": lambda state: prefixed(state, "net._orig_mod."),
    "own name": lambda state: prefixed(state, "my_encoder."),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_what_stands_before_all_names_is_dropped(wrap, tmp_path):
    model, state = normed(), moved()
    torch.save(wrap(state), tmp_path / "weights.pth")
    loaded = load_pretrained(model, tmp_path / "weights.pth")
    assert holds(model, state)
    assert loaded.fresh == () and set(loaded.unused) <= {"loss.w"}


def test_two_models_in_one_file_need_a_word(tmp_path):
    path = tmp_path / "weights.pth"
    first, second = moved(1), moved(2)
    torch.save(prefixed(first, "student.") | prefixed(second, "teacher."), path)
    message = refused(path)
    assert "student and teacher" in message and "model.weights_entry=student" in message
    model = normed()
    load_pretrained(model, path, entry="teacher")
    assert holds(model, second)
    assert "nothing called 'pupil'; it has student, teacher" in refused(path, entry="pupil")


def test_averaged_weights_come_first_and_the_others_on_request(tmp_path):
    path, raw, averaged = tmp_path / "weights.pth", moved(1), moved(2)
    for plain, better in (("state_dict", "state_dict_ema"), ("model", "model_ema")):
        torch.save({plain: raw, better: prefixed(averaged, "module."), "epoch": 3}, path)
        model = normed()
        loaded = load_pretrained(model, path)
        assert holds(model, averaged)
        assert str(loaded).endswith(f"tensors loaded from its {better}, not its {plain}")
        load_pretrained(model, path, entry=plain)
        assert holds(model, raw)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_file_in_several_parts_is_one(kind, tmp_path):
    state = moved()
    stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
    names = [f"{stem}-0000{i}-of-00002.{kind}" for i in (1, 2)]
    where = {name: names[number % 2] for number, name in enumerate(state)}
    for file in names:
        part = {name: state[name].contiguous() for name in state if where[name] == file}
        if kind == "bin":
            torch.save(part, tmp_path / file)
        else:
            save = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
            save.save_file(part, tmp_path / file)
    index = tmp_path / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    for file in (index, tmp_path / names[1]):
        model = normed()
        load_pretrained(model, file)
        assert holds(model, state)
    (tmp_path / names[0]).unlink()
    assert f"{names[0]} is not beside it (1 of 2)" in refused(index)
    index.write_text(json.dumps({"weight_map": {"a": "../outside.bin"}}))
    assert "must name files beside it" in refused(index)
    for content in ("[1]", "{", '{"weight_map": 3}'):
        index.write_text(content)
        assert "is not the index of a file in parts" in refused(index)
    index.unlink()
    assert "is one part of several" in str(refused(tmp_path / names[1]))


def test_body_of_a_tied_model_is_all_of_it(tmp_path):
    for model, name in ((llama_char(5, num_layers=2, tie_weights=True), "model."),
                        (gpt_char(), "transformer.")):  # fmt: skip
        state = filled(model)
        body = {n.removeprefix(name): t + 1 for n, t in state.items() if n.startswith(name)}
        torch.save(body, tmp_path / "body.pth")
        loaded = load_pretrained(model, tmp_path / "body.pth")
        assert (loaded.fresh, loaded.unused) == ((), ())
        assert holds(model, {name + n: t for n, t in body.items()})
