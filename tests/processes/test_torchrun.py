import json
import pickle
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import evaluate
import train
from faults.outcomes import assert_same, only_run, outcome, state_of
from tests.training.tiny import read_results
from zoo.training.checkpoints.checkpoint import read
from zoo.training.checkpoints.shard_files import ShardError, verify_shards

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed"),
]
SHRUNK = [
    *("trainer.device=cpu", "trainer.threads=1", "trainer.epochs=null", "trainer.steps=8"),
    *("trainer.evaluate_every=null", "trainer.limit_train_batches=4", "trainer.log_every=2"),
    *("callbacks.checkpoint.every_steps=3", "logger.graph=false", "logger.console=lines"),
]
KINDS = {  # One network, two that take turns, a penalty, one graph, carried states, ...
    "mlp_penguins": [],
    "logistic_breast_cancer": ["task.class_weights=balanced", "task.balanced_start=true"],
    "gan_digits": ["model.hidden_sizes=[16]", "model.maxout_sizes=[8]"],
    "wgan_gp_ring": [],
    "gcn_karate": ["model.dropout=0"],
    "lstm_stdlib": ["model.embed_dim=16", "model.hidden_size=16", "task.sample_length=9"],
    "reverse_transformer": [
        *("data.num_samples=200", "data.eval_samples=99", "data.batch_size=8"),
        *("model.embed_dim=16", "model.num_heads=2", "model.mlp_dim=16", "model.dropout=0"),
        *("optimizer=sgd", "optimizer.lr=0.05"),  # Adam makes steps of rounding errors.
    ],
    "ddpm_digits": [
        *("model.channels=[4,4]", "model.num_groups=2", "model.attention_sizes=[]"),
        *("data.batch_size=16", "task.sampling_steps=3"),
    ],
    "unet_shapes": [
        *("model.base_channels=2", "data.batch_size=4", "data.train_size=40"),
        *("data.val_size=21", "data.test_size=22"),
    ],
}
SHARDED = {
    "mlp_penguins": [],
    "gan_digits": [],  # with averaged weights
    "reverse_transformer": ["trainer.ema_decay=0.9"],
    "ddpm_digits": [],
}
DRAWS = ("gan_digits", "wgan_gp_ring", "ddpm_digits")
"""Experiments whose evaluation draws noise, for each process another."""


def launched(*arguments, processes=2, restarts=0, timeout=240):
    """What torchrun says of a program: its exit code and output."""
    options = ["--standalone", f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    return done.returncode, done.stdout


def program(*runs, kill=None, **options):
    words = [json.dumps(words) for words in runs]
    kill = [] if kill is None else [f"kill={kill}"]
    return launched(str(Path(__file__).with_name("program.py")), *kill, *words, **options)


def words_of(name, runs, *more):
    return [f"experiment={name}", *SHRUNK, *KINDS[name], f"paths.runs_dir={runs}", *more]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A folder with a run of every kind by two processes."""
    folder = tmp_path_factory.mktemp("kinds")
    sharded = [
        words_of(name, folder / f"{name}-shards", "trainer.strategy=fsdp", *more)
        for name, more in SHARDED.items()
    ]
    code, output = program(*(words_of(name, folder / name) for name in KINDS), *sharded)
    assert code == 0, output
    (folder / "said").write_text(output)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_task_trains_in_one_folder_and_counts_each_sample_once(name, of_two):
    path = only_run(of_two / name)
    assert state_of(path) == "finished"
    assert len(read(path / "checkpoints" / "last.pt")["ranks"]) == 2
    for split in ("val", "test"):
        found = read_results(path).get(split)
        if found is None:
            continue
        assert evaluate.main([f"run={path}", f"split={split}", "trainer.device=cpu"]) == 0
        alone = json.loads((path / f"evaluation-{split}.json").read_text())
        assert found.keys() <= alone.keys()
        if name not in DRAWS:
            assert {k: alone[k] for k in found} == pytest.approx(found, rel=1e-6, abs=1e-6)


# Networks without dropout and batch normalisation: numbers, one graph, carried states, padding.
@pytest.mark.parametrize(
    "name",
    ["mlp_penguins", "logistic_breast_cancer", "gcn_karate", "lstm_stdlib", "reverse_transformer"],
)
def test_two_processes_are_one_with_the_same_batches(name, of_two, tmp_path):
    assert train.main(words_of(name, tmp_path)) == 0
    paths = only_run(of_two / name), only_run(tmp_path)
    two, one = (read(path / "checkpoints" / "last.pt") for path in paths)
    assert two["position"]["step"] == one["position"]["step"]
    for key, value in one["model"].items():
        assert torch.allclose(two["model"][key], value, rtol=1e-4, atol=1e-5), key


@pytest.mark.parametrize("name", SHARDED)
def test_shards_are_written_by_each_process_and_read_as_one(name, of_two):
    path = only_run(of_two / f"{name}-shards")
    last = path / "checkpoints" / "last.pt"
    stored, whole = torch.load(last, weights_only=True), read(last)
    written = path / "checkpoints" / "shards"
    files = {file.name for file in (written / stored["shards"]["folder"]).iterdir()}
    assert files == set(stored["shards"]["files"]) and len(files) == 3  # One says what is where.
    kept = {torch.load(f, weights_only=True)["shards"]["folder"] for f in last.parent.glob("*.pt")}
    assert {folder.name for folder in written.iterdir()} == kept
    assert evaluate.main([f"run={path}", "split=val", "trainer.device=cpu"]) == 0
    if name not in DRAWS:
        alone, found = json.loads((path / "evaluation-val.json").read_text()), read_results(path)
        assert {k: alone[k] for k in found["val"]} == pytest.approx(found["val"], rel=1e-5)
        expected = read(only_run(of_two / name) / "checkpoints" / "last.pt")
        for key, value in expected["model"].items():
            assert torch.allclose(whole["model"][key], value, rtol=1e-4, atol=1e-5), key


def test_a_sweep_that_is_offered_next_is_for_one_process(of_two):
    offered = re.findall("^try next: .* -m (.*)$", (of_two / "said").read_text(), re.M)
    assert len(offered) == len(KINDS) + len(SHARDED)
    assert not any("trainer.strategy" in words for words in offered)


def test_shards_go_on_in_one_process_and_damage_is_found(of_two, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(only_run(of_two / "mlp_penguins-shards"), path)
    # Of two that are kept, the best of before is one, whatever the new ones are like.
    more = ["trainer.steps=10", "callbacks.checkpoint.top_k=2"]
    assert train.main([f"resume={path}", *more]) == 0
    assert "shards" not in torch.load(path / "checkpoints" / "last.pt", weights_only=True)
    (part, *_) = (path / "checkpoints" / "shards").glob("*/*.distcp")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    assert evaluate.main([f"run={path}", f"checkpoint={of_part(part)}"]) == 1
    assert "is missing or damaged" in capsys.readouterr().err


def of_part(part):
    """A checkpoint whose tensors are in a file."""
    checkpoints = part.parents[2].glob("*.pt")
    folder = part.parent.name
    return next(
        f
        for f in checkpoints
        if torch.load(f, weights_only=True).get("shards", {}).get("folder") == folder
    )


def test_a_description_of_shards_with_other_objects_is_refused(tmp_path):
    (tmp_path / ".metadata").write_bytes(pickle.dumps(print))
    with pytest.raises(ShardError, match=r"holds an object of builtins\.print"):
        verify_shards(tmp_path, {})


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run of two processes, of which one is killed; whether it ends, and how long that takes."""
    runs = tmp_path_factory.mktemp("killed")
    began = time.monotonic()
    code, output = program(words_of("mlp_penguins", runs), kill=5)
    return runs, code, output, time.monotonic() - began


def test_where_one_process_is_killed_the_others_end_and_say_so(killed):
    runs, code, output, seconds = killed
    assert code != 0
    assert "process 0: error: another process of this run has ended" in output
    assert seconds < 60  # Most of it the start of Python.
    path = only_run(runs)
    assert state_of(path) in ("failed", "dead")
    assert "process" in (path / "log.txt").read_text()


def test_a_killed_run_goes_on_in_as_many_processes_bit_for_bit(killed, of_two):
    path = only_run(killed[0])
    code, output = program([f"resume={path}"])
    assert code == 0, output
    assert_same(path, outcome(only_run(of_two / "mlp_penguins")))


@pytest.mark.parametrize("name", ["mlp_penguins", "mlp_penguins-shards"])
def test_torchrun_starts_a_killed_run_again_in_its_folder_bit_for_bit(name, of_two, tmp_path):
    experiment, _, shards = name.partition("-")
    more = ["trainer.strategy=fsdp", *SHARDED[experiment]] if shards else []
    # The last checkpoint but one is complete, and the run beyond it, whenever shards are written.
    code, output = program(words_of(experiment, tmp_path, *more), kill=8, restarts=1)
    assert code == 0, output
    assert_same(only_run(tmp_path), outcome(only_run(of_two / name)))


def test_a_run_without_a_checkpoint_starts_again_in_its_folder(tmp_path, monkeypatch):
    words = words_of("mlp_penguins", tmp_path)
    assert train.main(words) == 0
    path = only_run(tmp_path)
    (path / "checkpoints" / "last.pt").unlink()
    status = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps({**status, "elastic": "this launch"}))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this launch")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train.main(words) == 0
    for folder in (path, path / "failed-1"):
        assert {"config.yaml", "metrics.jsonl", "results.json"} <= {
            f.name for f in folder.iterdir()
        }
    assert state_of(path) == "finished"


@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(first, then, of_two, tmp_path):
    def run(words, processes):
        code, said = (train.main(words), "") if processes == 1 else program(words)
        assert code == 0, said

    words = words_of("lstm_stdlib", tmp_path)
    run([w.replace("trainer.steps=8", "trainer.steps=5") for w in words], first)
    path = only_run(tmp_path)
    run([f"resume={path}", "trainer.steps=8"], then)
    said = f"this run had {first} processes and goes on with {then}"
    assert said in (path / "log.txt").read_text()
    expected = read(only_run(of_two / "lstm_stdlib") / "checkpoints" / "last.pt")["model"]
    found = read(path / "checkpoints" / "last.pt")["model"]
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-4, atol=1e-5), key


@pytest.mark.parametrize(
    ("words", "task"),
    [
        (
            ["experiment=logistic_breast_cancer", *KINDS["logistic_breast_cancer"]],
            "Classification",
        ),
        (["experiment=vae_digits"], "VariationalInference"),
        (["experiment=bnn_diabetes"], "BayesianRegression"),
    ],
    ids=["first weights", "methods", "backward"],
)
def test_weights_outside_of_forward_are_refused_with_shards(words, task, tmp_path):
    more = [*SHRUNK, "trainer.strategy=fsdp", f"paths.runs_dir={tmp_path}"]
    code, output = program([*words, *more])
    assert code != 0
    said = f"error: {task} uses weights outside of the network's forward"
    assert f"process 0: {said}" in output or f"process 1: {said}" in output  # The first ends both.
    begins = task == "BayesianRegression"  # What its backward pass needs shows in the first step.
    assert any(tmp_path.iterdir()) == begins


def test_a_sweep_is_refused(tmp_path):
    code, output = launched("train.py", "-m", "experiment=lenet_digits", "seed=1,2")
    assert code != 0
    assert "torchrun: a sweep (-m) works in one process" in output


def test_the_batch_size_that_fits_in_all_processes_is_found(tmp_path):
    find = ["trainer.find_batch_size=true", "trainer.memory_limit=100GiB"]
    code, said = launched("train.py", *words_of("mlp_penguins", tmp_path, *find))
    assert code == 0, said
    run = only_run(tmp_path)
    size = yaml.safe_load((run / "config.yaml").read_text())["data"]["batch_size"]
    assert (
        size % 2 == 0 and f"data.batch_size={size} has been found" in (run / "log.txt").read_text()
    )
    assert "data.batch_size=64: " in said and read_results(run)["steps"] == 8
    code, said = launched(
        "train.py", *words_of("mlp_penguins", tmp_path, *find, "trainer.strategy=fsdp")
    )
    assert code != 0 and "trainer.strategy=fsdp has it in parts; give data.batch_size" in said
