"""A language model that writes, from its run folder alone."""

import json
import shutil
from pathlib import Path

import pytest

import evaluate
import train
import zoo
from scripts import generate

WORDS = (
    "experiment=lstm_stdlib",
    "model.hidden_size=16",
    "model.embed_dim=16",
    "trainer.steps=6",
    "trainer.evaluate_every=3",
    "trainer.limit_eval_batches=2",
    "task.sample_length=5",
    "logger=off",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("text")
    assert train.main([*WORDS, f"paths.runs_dir={place}"]) == 0
    (folder,) = place.glob("*/*")
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of the run, elsewhere."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "run")).relative_to(tmp_path)


def written(capsys, *words):
    assert generate.main(words) == 0
    return capsys.readouterr().out


def test_text_begins_with_the_prompt_and_has_the_length(run, capsys):
    text = written(capsys, f"run={run}", "prompt=def f(x):\n", "length=40")
    assert text.startswith("def f(x):\n")
    assert len(text) == len("def f(x):\n") + 40 + len("\n")


def test_a_seed_is_a_text(run, capsys):
    first, again, other = (
        written(capsys, f"run={run}", "length=60", f"seed={seed}") for seed in (1, 1, 2)
    )
    assert first == again != other


def test_temperature_zero_needs_no_seed(run, capsys):
    texts = {written(capsys, f"run={run}", "temperature=0", f"seed={seed}") for seed in (1, 2)}
    assert texts == {written(capsys, f"run={run}", "top_k=1")}
    assert texts == {written(capsys, f"run={run}", "top_p=0.0001")}


def test_vocabulary_in_the_folder_is_the_one_that_counts(run, capsys):
    file = run / "vocabulary.json"
    stored = json.loads(file.read_text())
    before = written(capsys, f"run={run}", "temperature=0", "length=30")
    stored["characters"] = [chr(ord(c) + 0x100) for c in stored["characters"]]
    file.write_text(json.dumps(stored))
    (run / "data.json").unlink()  # Which would tell that the vocabulary is another.
    shifted = "".join(chr(ord(c) + 0x100) for c in before[:-1])
    # A text without a prompt begins after a line break, which is no character any more.
    prompt = chr(0x100 + ord("\n"))
    assert written(
        capsys, f"run={run}", "temperature=0", "length=30", f"prompt={prompt}"
    ).startswith(prompt + shifted)


def test_rebuilt_data_module_knows_the_vocabulary_without_its_text(run):
    _, data = zoo.load(run)
    vocabulary = data.vocabularies["vocabulary"]
    assert vocabulary.decode(vocabulary.encode("import this")) == "import this"


def test_evaluation_uses_the_vocabulary_of_the_run(run, capsys):
    expected = json.loads((run / "results.json").read_text())["val"]["loss"]
    # These data have no test split.
    assert evaluate.main([f"run={run}", "trainer.limit_eval_batches=2"]) == 0
    found = json.loads((run / "evaluation-val.json").read_text())["loss"]
    assert found == pytest.approx(expected, rel=1e-6)


def test_resumed_run_keeps_the_vocabulary(run, capsys):
    before = (run / "vocabulary.json").read_bytes()
    assert train.main([f"resume={run}", "trainer.steps=8"]) == 0
    assert (run / "vocabulary.json").read_bytes() == before


def test_a_run_goes_on_only_with_the_data_that_it_began_with(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "to be or not to be\n" * 200
    Path("text.txt").write_text(text)
    words = ("data=text", f"data.path={tmp_path}/text.txt", "model=char_gru", "model.hidden_size=8")
    words += ("task=language_modeling", "task.sample_length=0", "trainer.steps=2", "logger=off")
    assert train.main([*words, "paths.runs_dir=runs", "trainer.epochs=null"]) == 0
    (run,) = Path("runs").glob("*/*")
    Path("text.txt").write_text(text * 2)
    capsys.readouterr()
    assert train.main([f"resume={run}", "trainer.steps=4"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: resume={run}: these data have ") and said.count("\n") == 1
    assert " samples in train, where there were " in said and said.endswith("begin a new run\n")
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert evaluate.main([f"run={run}"]) == 0
    assert "warning: these data have " in capsys.readouterr().err
    Path("text.txt").write_text(text)
    assert train.main([f"resume={run}", "trainer.steps=4"]) == 0
    assert evaluate.main([f"run={run}"]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "run=<run folder> is required"),
        (("run=nowhere",), "run=nowhere: there is no such folder"),
        (("run=run", "length=0"), "length=0: must be a whole number, at least 1"),
        (("run=run", "temperature=hot"), "temperature=hot: must be a number"),
        (("run=run", "temperature=-1"), "temperature must be finite and at least 0, not -1.0"),
        (("run=run", "top_p=2"), "top_p must be above 0 and at most 1, or null, not 2.0"),
        (("run=run", f"seed={2**63}"), f"seed={2**63}: must be below 2**63"),
        (("run=run", "top_k="), "top_k=: has no value; write top_k=<value> or omit it"),
        (("run=run", "prompt=ä"), "prompt cannot be written in the vocabulary"),
        (("run=run", "--promt"), "--promt: there is no such flag"),
        (("run=run", "model.hidden_size=3"), "model.hidden_size"),
    ],
)
def test_mistake_is_one_line_that_names_it(run, capsys, words, message):
    assert generate.main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_damaged_vocabulary_is_named(run, capsys):
    (run / "vocabulary.json").write_text('{"kind": "char')
    assert generate.main([f"run={run}"]) == 2
    assert "run/vocabulary.json cannot be read" in capsys.readouterr().err


def test_run_without_its_vocabulary_says_so(run, capsys):
    (run / "vocabulary.json").unlink()
    assert generate.main([f"run={run}"]) == 2
    assert "vocabulary must be given to read or write text" in capsys.readouterr().err


def test_run_of_another_kind_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["experiment=linear_diabetes", "logger=off", "trainer.steps=1", "trainer.epochs=null"]
    assert train.main(words) == 0
    (folder,) = Path("runs").glob("*/*")
    assert generate.main([f"run={folder}"]) == 2
    assert "this run is not a language model" in capsys.readouterr().err


def test_end_of_a_run_says_how_to_let_it_write(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train.main(list(WORDS)) == 0
    (folder,) = Path("runs").glob("*/*")
    assert f"scripts/generate.py run={folder} length=500\n" in capsys.readouterr().out
