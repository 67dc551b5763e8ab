"""What is changed on resume is right or refused, and what is refused leaves the folder alone."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

import evaluate
import train
from tests.training.tiny import At, differences, falling, mlp, new_folder, trainer_of, weights
from zoo.app.place import RunLocation
from zoo.config.run_config import stored_words
from zoo.training.callbacks import EarlyStopping
from zoo.training.checkpoints.checkpoint import read
from zoo.training.interruption import OutOfTime
from zoo.training.settings import EarlyStoppingSettings

WORDS = (
    *("model=mlp", "model.hidden_sizes=[8]", "data=digits", "data.image_size=8"),
    *("task=classification", "trainer.device=cpu", "trainer.limit_train_batches=4"),
    *("logger.graph=false", "logger.images_every=0", "trainer.log_every=2"),
)


def contents(folder):
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {f.relative_to(folder): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def make(place, *words):
    assert train.main([*WORDS, *words, f"paths.runs_dir={place}/runs"]) == 0
    (run,) = (file.parent for file in place.glob("runs/*/*/config.yaml"))
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("changes")
    return make(place, "trainer.epochs=2", "trainer.limit_eval_batches=3")


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run of two epochs of four steps."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("", 0, "ended by trainer.epochs=2; trainer.epochs=<more> lets it go on"),
        ("trainer.epochs=2", 0, "is finished"),
        ("logger.console=off trainer.threads=1", 0, "is finished"),
        ("optimizer.lr=0.5", 2, "optimizer.lr=0.5: nothing to do, and nothing is changed"),
        ("trainer.epochs=1", 2, "trainer.epochs=1 ends this run after 4 steps"),
        ("trainer.steps=20", 2, "trainer.epochs=2 ends it before, after 8"),
        ("trainer.epochs=4 trainer.accumulate=2", 2, "trainer.accumulate=2: would change how many"),
        ("trainer.epochs=4 callbacks.checkpoint.monitor=loss", 2, "not comparable"),
        ("trainer.epochs=4 callbacks.checkpoint={monitor:loss}", 2, "not comparable"),
        ("trainer.epochs=4 callbacks.checkpoint.mode=min", 2, "in place of accuracy (max)"),
        ("callbacks.checkpoint.monitor=loss", 2, "loss (min) in place of accuracy (max): would"),
        ("callbacks.checkpoint.monitor=accuracy", 2, "nothing to do, and nothing is changed"),
        ("trainer.epochs=4 optimizer.amsgrad=true", 2, "max_exp_avg_sq"),
        ("trainer.epochs=4 checkpoint=kept-1", 2, "this run has best, last, previous"),
        ("trainer.epochs=4 optimizer.groups={nope:{lr:1.0}}", 2, "no parameter matches 'nope'"),
    ],
)
def test_a_resume_that_is_refused_leaves_the_folder_as_it_was(words, code, message, run, capsys):
    before = contents(run)
    assert train.main([f"resume={run}", *words.split()]) == code
    captured = capsys.readouterr()
    assert message in captured.out + captured.err
    assert contents(run) == before


def test_the_name_of_what_auto_has_meant_is_no_other_metric(run):
    config, plain = run / "config.yaml", shutil.copytree(run, run.with_name("plain"))
    named = ["callbacks.checkpoint.monitor=accuracy", "callbacks.checkpoint.mode=max"]
    assert train.main([f"resume={run}", "trainer.epochs=3", *named]) == 0
    assert "monitor: accuracy\n    mode: max" in config.read_text()
    assert train.main([f"resume={plain}", "trainer.epochs=3"]) == 0
    best, same = (read(path / "checkpoints" / "best.pt") for path in (run, plain))
    assert best["ranking"] == same["ranking"] and len(best["ranking"]) == 1
    back = ["callbacks.checkpoint.monitor=auto", "callbacks.checkpoint.mode=auto"]
    assert train.main([f"resume={run}", "trainer.epochs=4", *back]) == 0
    assert "monitor: auto\n    mode: auto" in config.read_text()
    other = ["callbacks.checkpoint.monitor=loss", "callbacks.checkpoint.mode=min"]
    assert train.main([f"resume={run}", "trainer.epochs=5", *other]) == 2


def test_a_resume_that_finds_no_checkpoint_leaves_the_folder_as_it_was(run, capsys):
    for name in ("last.pt", "previous.pt"):
        (run / "checkpoints" / name).write_bytes(b"damaged")
    before = contents(run)
    assert train.main([f"resume={run}", "trainer.epochs=4"]) == 1
    assert "no checkpoint is left to resume from" in capsys.readouterr().err
    assert contents(run) == before


def test_a_run_that_never_saved_says_so_before_it_looks_for_anything_else(run, capsys, monkeypatch):
    """Whatever else is missing in its folder, a teacher half copied, is of no use to anybody."""
    for file in (run / "checkpoints").iterdir():
        file.unlink()
    monkeypatch.setattr(RunLocation, "run", lambda *_: pytest.fail("it went on"))
    assert train.main([f"resume={run}", "trainer.epochs=4"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: no checkpoint is left to resume from: ")
    assert said.endswith("; start the run anew\n")


def test_what_changes_is_written_down_with_its_step(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["trainer.epochs=3", "optimizer.weight_decay=0"]
    assert train.main([f"resume={run}", *words, "trainer.log_every=2"]) == 0
    text = (run / "overrides.yaml").read_text()
    assert text.endswith("# from step 8 on:\n- trainer.epochs=3\n- optimizer.weight_decay=0\n")
    assert stored_words(run)[-1] == words[-1]
    assert f"from step 8 on: {' '.join(words)}" in (run / "log.txt").read_text()
    (event,) = EventAccumulator(str(run)).Reload().Tensors("resumed with/text_summary")
    assert event.step == 8
    assert b"optimizer.weight_decay=0" in event.tensor_proto.string_val[0]
    assert json.loads((run / "results.json").read_text())["steps"] == 12


def test_a_run_counted_in_steps_says_which_limit_ends_it(tmp_path, capsys):
    run = make(tmp_path, "trainer.epochs=null", "trainer.steps=6")
    assert "ended by trainer.steps=6" in capsys.readouterr().out
    before = contents(run)
    assert train.main([f"resume={run}", "trainer.epochs=9"]) == 2
    assert "trainer.steps=6 ends it before, after 6" in capsys.readouterr().err
    assert contents(run) == before


def test_a_limit_beyond_the_one_in_force_is_refused(tmp_path, capsys):
    words = [*WORDS, f"paths.runs_dir={tmp_path}/runs"]
    assert train.main([*words, "trainer.steps=1000"]) == 2
    assert "set trainer.epochs as well (null: no limit)" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_early_stopping_says_why_and_what_lets_the_run_go_on(tmp_path, capsys):
    patience = "callbacks.early_stopping.patience"
    words = ("trainer.epochs=5", f"{patience}=1", "callbacks.early_stopping.min_delta=9")
    run = make(tmp_path, *words)
    assert f"ended by {patience}=1 (no better accuracy in 1 evaluations)" in capsys.readouterr().out
    assert train.main([f"resume={run}"]) == 0
    assert f"{patience}=<more> lets it go on" in capsys.readouterr().out
    before = contents(run)
    assert train.main([f"resume={run}", "trainer.epochs=9"]) == 2
    assert f"{patience}=<more> lets it go on" in capsys.readouterr().err
    assert contents(run) == before
    assert train.main([f"resume={run}", f"{patience}=2"]) == 0
    assert json.loads((run / "results.json").read_text())["steps"] == 12


def test_a_time_limit_saves_and_ends_with_75_and_the_run_goes_on(tmp_path, capsys):
    words = [*WORDS, "trainer.epochs=3", f"paths.runs_dir={tmp_path}/runs"]
    assert train.main([*words, "trainer.time_limit=1e-9"]) == 75
    assert "trainer.time_limit=1e-09 is over; the state is saved" in capsys.readouterr().err
    (run,) = (file.parent for file in tmp_path.glob("runs/*/*/config.yaml"))
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    assert train.main([f"resume={run}"]) == 75  # Each time it comes further.
    assert read(run / "checkpoints" / "last.pt")["position"]["step"] == 2
    assert train.main([f"resume={run}", "trainer.time_limit=null"]) == 0
    assert json.loads((run / "results.json").read_text())["steps"] == 12


def test_the_time_limit_survives_being_pickled():
    import pickle

    assert str(pickle.loads(pickle.dumps(OutOfTime("1:00:00")))) == str(OutOfTime("1:00:00"))


def test_evaluation_takes_the_whole_split_unless_asked(run, capsys):
    def judged(*words):
        assert evaluate.main([f"run={run}", "split=val", *words]) == 0
        found = json.loads((run / "evaluation-val.json").read_text())
        return sum(row["support"] for row in found["classes"][:-1]), capsys.readouterr().out

    count, out = judged()
    assert count == json.loads((run / "data.json").read_text())["val"]
    assert "all of it (the run took 3 batches: trainer.limit_eval_batches=3)" in out
    part, out = judged("trainer.limit_eval_batches=1")
    assert part < count and "val, the first 1 batches" in out


# ------------------------------------------------------------------------- without a command line


def moments(trainer):
    (optimizer,) = trainer.optimizers.values()
    names = {id(p): name for name, p in trainer.task.model.named_parameters()}
    return {names[id(p)]: state["exp_avg"].clone() for p, state in optimizer.state.items()}


@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.0},
        {"decay_norms_and_biases": True},
        {"groups": {"*.bias": {"lr": 0.1}, "classifier.*": {"betas": (0.8, 0.9)}}},
    ],
)
def test_moments_stay_with_their_parameters_in_other_groups(options, tmp_path):
    folder = new_folder(tmp_path)
    first = trainer_of(epochs=1, optimizer={"weight_decay": 0.1})
    first.fit(folder=folder)
    again = trainer_of(epochs=2, optimizer={"weight_decay": 0.1, **options})
    orders = [
        [id(p) for g in t.optimizers["model"].param_groups for p in g["params"]]
        for t in (first, again)
    ]
    places = [list(map(id, t.task.model.parameters())) for t in (first, again)]
    numbered = [[p.index(i) for i in o] for p, o in zip(places, orders, strict=True)]
    assert numbered[0] != numbered[1]  # Else position would do.
    again.restore(folder)
    before, now = moments(first), moments(again)
    assert before.keys() == now.keys()
    assert all(torch.equal(before[name], now[name]) for name in before)
    again.fit(folder=folder, resume=True)


def without_names(folder):
    """Makes the last checkpoint one of version 0.1.0, which kept no parameters' names."""
    file = folder.path / "checkpoints" / "last.pt"
    state = torch.load(file)
    del state["parameters"]
    torch.save(state, file)


def test_a_checkpoint_without_names_is_arranged_by_the_rule_of_its_time(tmp_path):
    folder = new_folder(tmp_path)
    trainer_of(epochs=1, optimizer={"weight_decay": 0.1}).fit(folder=folder)
    found = []
    for _ in range(2):
        trainer = trainer_of(epochs=1, optimizer={"weight_decay": 0.0})
        trainer.restore(folder)
        state = trainer.optimizers["model"].state
        found.append([state[p]["exp_avg"] for p in trainer.task.model.parameters()])
        if len(found) == 1:
            without_names(folder)
    assert differences(*found) == []


def test_a_checkpoint_without_names_is_refused_other_groups(tmp_path):
    folder = new_folder(tmp_path)
    groups = {"layers.0.weight": {"lr": 0.001}}
    trainer_of(epochs=1, optimizer={"groups": groups}).fit(folder=folder)
    without_names(folder)
    trainer_of(epochs=1, optimizer={"groups": groups}).restore(folder)
    with pytest.raises(RuntimeError, match="kept no parameters' names"):
        trainer_of(epochs=1).restore(folder)


VALUES = (3.0, 1.0, 2.5, 0.5, 0.7, 0.6)


def ranked(folder):
    files = (folder.path / "checkpoints").glob("step-*.pt")
    return sorted(read(f)["position"]["step"] for f in files)


@pytest.mark.parametrize(
    ("first", "then", "kept"), [(1, 3, [24, 30, 36]), (3, 1, [12, 18, 24]), (3, 2, [24, 36])]
)
def test_another_top_k_keeps_what_is_ranked(first, then, kept, tmp_path):
    folder = new_folder(tmp_path)
    falling(VALUES, epochs=4, checkpoints={"top_k": first}).fit(folder=folder)
    falling(VALUES, epochs=6, checkpoints={"top_k": then}).fit(folder=folder, resume=True)
    assert ranked(folder) == kept
    assert read(folder.path / "checkpoints" / "best.pt")["position"]["step"] == 24


def test_every_nth_evaluation_is_kept_for_good(tmp_path):
    folder = new_folder(tmp_path)
    trainer_of(epochs=5, checkpoints={"keep_every": 2}).fit(folder=folder)
    names = sorted(f.name for f in (folder.path / "checkpoints").glob("kept-*.pt"))
    assert names == ["kept-00000012.pt", "kept-00000024.pt"]
    other = new_folder(tmp_path / "other")
    options = {"steps": 5, "epochs": None, "evaluate_every": 2}
    trainer_of(**options, checkpoints={"keep_every": 1}).fit(folder=other)
    names = sorted(f.name for f in (other.path / "checkpoints").glob("kept-*.pt"))
    assert names == ["kept-00000002.pt", "kept-00000004.pt"]  # 5 is the end's own.


def test_a_run_goes_back_to_a_checkpoint_and_ends_like_one_that_never_left_it(tmp_path):
    whole, parts = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    models = mlp(dropout=0.3), mlp(dropout=0.3), mlp(dropout=0.3)
    results = trainer_of(models[0], epochs=4).fit(folder=whole)
    options = {"epochs": 4, "checkpoints": {"keep_every": 1}}
    trainer_of(models[1], **options).fit(folder=parts)
    again = trainer_of(models[2], **options)
    again.restore(parts, checkpoint=str(parts.path / "checkpoints" / "kept-00000012.pt"))
    assert again.step == 12
    found = again.fit(folder=parts, resume=True)
    assert found["steps"] == 24 and found["val"] == results["val"]
    assert torch.equal(weights(models[2]), weights(models[0]))
    assert read(parts.path / "checkpoints" / "left-00000024.pt")["position"]["step"] == 24


def test_best_is_never_a_file_of_later_steps_after_going_back(tmp_path):
    folder = new_folder(tmp_path)
    falling((3.0, 1.0, 0.5), epochs=3, checkpoints={"keep_every": 1}).fit(folder=folder)
    back = falling((3.0, 1.0, 2.0), epochs=3)
    back.restore(folder, checkpoint=str(folder.path / "checkpoints" / "kept-00000012.pt"))
    results = back.fit(folder=folder, resume=True)
    assert results["selected_step"] == 12
    assert read(folder.path / "checkpoints" / "best.pt")["position"]["step"] == 12


def test_a_failed_restore_writes_nothing_whatever_the_callbacks(tmp_path):
    folder = new_folder(tmp_path)
    stopping = EarlyStopping(EarlyStoppingSettings(patience=1))
    trainer_of(epochs=1).fit(folder=folder, callbacks=[stopping, At(2, lambda trainer: None)])
    before = contents(Path(folder.path))
    with pytest.raises(RuntimeError, match="another model"):
        trainer_of(mlp(in_features=7), epochs=2).fit(folder=folder, resume=True)
    assert contents(Path(folder.path)) == before
