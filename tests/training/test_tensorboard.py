import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.training.tiny import KINDS, At, Rows, build, fit, mlp, new_folder, read_rows, trainer_of
from zoo.data.images.digits import Digits
from zoo.models.vision.lenet import lenet5
from zoo.tasks.classification import Classification
from zoo.training.callback import Callback
from zoo.training.callbacks import TIMINGS
from zoo.training.interruption import Interrupted
from zoo.training.run_folder import RunFolder
from zoo.training.settings import LoggerSettings, TrainerSettings
from zoo.training.tensorboard import TensorBoard, chart
from zoo.training.trainer import Trainer

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
event_files = pytest.importorskip("zoo.training.event_files")
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer  # noqa: E402
from tensorboard.plugins.hparams import plugin_data_pb2  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
EVERYTHING = dict.fromkeys(("scalars", "images", "tensors", "histograms"), 0)


def logged(trainer, folder, *, config=None, callbacks=(), resume=False, **settings):
    """Runs with TensorBoard on."""
    settings = {"graph": False, **settings}
    board = TensorBoard(LoggerSettings(**settings), folder.path, config)
    return fit(trainer, folder, [board, *callbacks], resume=resume)


def seen(folder, split=""):
    found = accumulator.EventAccumulator(str(folder.path / split), size_guidance=EVERYTHING)
    return found.Reload()


def curve(folder, split, tag):
    return [(event.step, event.value) for event in seen(folder, split).Scalars(tag)]


def stop(trainer):
    trainer.signals.stop = signal.SIGTERM


# --------------------------------------------------------------------------------- curves


def test_training_and_evaluation_share_a_chart_as_two_runs(tmp_path):
    folder = new_folder(tmp_path)
    logged(trainer_of(epochs=2, train_metrics=True), folder)
    board = EventMultiplexer(size_guidance=EVERYTHING).AddRunsFromDirectory(str(tmp_path)).Reload()
    name = folder.path.name
    assert set(board.Runs()) == {name, f"{name}/val", f"{name}/test"}
    for run, steps in ((name, list(range(1, 13))), (f"{name}/val", [6, 12])):
        assert [event.step for event in board.Scalars(run, "loss")] == steps
    for run, steps in ((f"{name}/test", [12]), (name, [6, 12])):
        assert [event.step for event in board.Scalars(run, "metrics/accuracy")] == steps


def test_what_tensorboard_shows_is_what_the_file_of_rows_holds(tmp_path):
    folder = new_folder(tmp_path)
    logged(trainer_of(epochs=2, train_metrics=True), folder)
    for split, run in (("train", ""), ("val", "val"), ("test", "test")):
        rows = [row for row in read_rows(folder.path) if row["split"] == split]
        for name in {name for row in rows for name in row} - {"step", "epoch", "split"}:
            expected = [
                (row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows if name in row
            ]
            assert curve(folder, run, chart(name)) == expected, name


def test_rates_norms_speed_memory_and_waiting_are_curves_of_training(tmp_path):
    folder = new_folder(tmp_path)
    logged(trainer_of(epochs=1), folder)
    tags = set(seen(folder).Tags()["scalars"])
    timings = {f"system/{name}" for name in TIMINGS if name not in ("seconds", "mfu")}
    metrics = ("loss", "accuracy", "calibration_error")
    selected = {f"selected/{s}_{m}" for s in ("val", "test") for m in metrics}
    assert tags == {"loss", "optimizer/lr", "optimizer/grad_norm"} | timings | selected
    assert set(seen(folder, "val").Tags()["scalars"]) == {
        "loss",
        "metrics/accuracy",
        "metrics/calibration_error",
    }


def test_two_networks_have_curves_of_their_own(tmp_path):
    folder = new_folder(tmp_path)
    trainer, callbacks = build("adversarial")
    logged(trainer, folder, callbacks=callbacks)
    parts = ("loss/{}_loss", "optimizer/{}_lr", "optimizer/{}_grad_norm")
    names = {p.format(n) for n in ("generator", "discriminator") for p in parts}
    assert names <= set(seen(folder).Tags()["scalars"])


@pytest.mark.parametrize("wanted", [False, True])
def test_gradient_norms_of_the_layers_are_there_on_request(wanted, tmp_path):
    folder = new_folder(tmp_path)
    model = mlp()
    logged(trainer_of(model, epochs=1, layer_gradients=wanted), folder)
    layers = {f"grad_norm/{name}" for name, _ in model.named_parameters()} if wanted else set()
    found = {tag for tag in seen(folder).Tags()["scalars"] if tag.startswith("grad_norm/")}
    assert found == layers


# ------------------------------------------------------------------------------- hparams


def hparams(folder):
    contents = seen(folder).PluginTagToContent("hparams")
    return {
        tag.rpartition("/")[2]: plugin_data_pb2.HParamsPluginData.FromString(content)
        for tag, content in contents.items()
    }


CONFIG = {
    "name": "not tuned",
    "seed": 3,
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.01, "betas": [0.9, 0.99]},
    "trainer": {"epochs": 1, "steps": None, "compile": False},
    "paths": {"runs_dir": "not tuned"},
    "data": {"vocabulary": "x" * 200},
}


def test_hyperparameters_and_final_metrics_are_in_the_same_run(tmp_path):
    folder = new_folder(tmp_path)
    logged(trainer_of(epochs=1), folder, config=CONFIG)
    board = EventMultiplexer(size_guidance=EVERYTHING).AddRunsFromDirectory(str(tmp_path))
    assert len(board.Runs()) == 3  # torch's add_hparams would have made a fourth
    found = hparams(folder)
    assert set(found) == {"session_start_info", "session_end_info"}
    values = found["session_start_info"].session_start_info.hparams
    assert {name: value.WhichOneof("kind") for name, value in values.items()} == {
        "seed": "number_value",
        "optimizer": "string_value",
        "optimizer.lr": "number_value",
        "optimizer.betas": "string_value",
        "trainer.epochs": "number_value",
        "trainer.compile": "bool_value",
    }
    assert values["optimizer"].string_value == "torch.optim.AdamW"
    assert found["session_end_info"].session_end_info.status == 1  # success


def test_runs_of_different_experiments_show_all_columns_first_those_that_differ(tmp_path):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import (
        EventMultiplexer as PluginMultiplexer,
    )
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams.backend_context import Context

    results = []
    for lr, other in ((0.01, {"dropout": 0.5}), (0.1, {"width": 8})):
        config = CONFIG | {"optimizer": CONFIG["optimizer"] | {"lr": lr}, "model": other}
        folder = new_folder(tmp_path)
        results.append(logged(trainer_of(epochs=2), folder, config=config))
    board = PluginMultiplexer(tensor_size_guidance={"scalars": 0, "hparams": 0})
    board.AddRunsFromDirectory(str(tmp_path)).Reload()
    context = Context(
        base_plugin.TBContext(data_provider=MultiplexerDataProvider(board, str(tmp_path)))
    )
    request = RequestContext()
    metadata = context.hparams_metadata(request, "experiment")
    table = context.experiment_from_metadata(request, "experiment", True, metadata, [])
    names = [info.name for info in table.hparam_infos]
    assert names[0] == "optimizer.lr" and {"model.dropout", "model.width"} <= set(names)
    columns = {(info.name.group, info.name.tag) for info in table.metric_infos}
    assert {("", "selected/val_accuracy"), ("", "selected/test_loss")} <= columns
    for split in ("val", "test"):
        (point,) = curve(folder, "", f"selected/{split}_loss")
        assert point == (13, pytest.approx(results[-1][split]["loss"]))


def test_a_run_that_was_interrupted_and_resumed_counts_as_a_success(tmp_path):
    folder = new_folder(tmp_path)
    with pytest.raises(Interrupted):
        logged(trainer_of(epochs=2), folder, config=CONFIG, callbacks=[At(8, stop)])
    assert "session_end_info" not in hparams(folder)
    logged(trainer_of(epochs=2), folder, config=CONFIG, resume=True)
    assert hparams(folder)["session_end_info"].session_end_info.status == 1


# -------------------------------------------------------------------- images and texts


def images(folder, split=""):
    found = seen(folder, split)
    return {tag: [event.step for event in found.Images(tag)] for tag in found.Tags()["images"]}


def test_a_classifier_shows_inputs_confusions_reliability_and_mistakes(tmp_path):
    folder = new_folder(tmp_path)
    trainer, callbacks = build("classification")
    logged(trainer, folder, callbacks=callbacks)
    assert images(folder) == {"inputs": [0]}
    shown = ("confusion_matrix", "reliability", "mistakes")
    assert images(folder, "val") == {name: [4, 10] for name in shown}
    assert images(folder, "test") == {name: [10] for name in shown}


@pytest.mark.parametrize(
    ("every", "steps"),
    [(0, [12]), (1, [2, 4, 6, 8, 10, 12]), (2, [2, 6, 10, 12]), (4, [2, 10, 12])],
)
def test_images_come_every_so_many_evaluations_and_at_the_last(every, steps, tmp_path):
    folder = new_folder(tmp_path)
    logged(trainer_of(epochs=2, evaluate_every=2), folder, images_every=every)
    assert images(folder, "val") == {"confusion_matrix": steps, "reliability": steps}


def test_a_gan_shows_samples_of_the_same_noise(tmp_path):
    folder = new_folder(tmp_path)
    trainer, callbacks = build("adversarial")
    logged(trainer, folder, callbacks=callbacks)
    assert images(folder)["inputs"] == [0]
    assert images(folder, "val") == {"samples": [2, 8]}


def test_a_language_model_shows_a_text(tmp_path):
    folder = new_folder(tmp_path)
    trainer, callbacks = build("language_modeling")
    logged(trainer, folder, callbacks=callbacks)
    found = seen(folder, "val")
    assert "sample/text_summary" in found.Tags()["tensors"]
    (text,) = found.Tensors("sample/text_summary")[0].tensor_proto.string_val
    assert text.startswith(b"    ")  # Markdown's block of text as it is


def test_a_classifier_shows_a_table_of_its_classes(tmp_path):
    folder = new_folder(tmp_path)
    logged(trainer_of(epochs=1), folder)
    (text,) = seen(folder, "test").Tensors("classes/text_summary")[0].tensor_proto.string_val
    lines = text.decode().splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        *("class", "precision", "recall", "f1", "support")
    ]
    assert lines[1].startswith("| :--") and lines[1].endswith("--: |")
    assert lines[-1].startswith("| macro mean |") and lines[-1].endswith("|       7 |")
    assert len({len(line) for line in lines}) == 1


# --------------------------------------------------------------------------------- graph


def classifier(model, **settings):
    data = Digits(batch_size=8, image_size=settings.pop("image_size", 8))
    data.setup()
    return Trainer(
        Classification(model, num_classes=10),
        data,
        torch.optim.SGD(model.parameters(), lr=0.01),
        settings=TrainerSettings(steps=1, limit_eval_batches=1, device="cpu", **settings),
    )


def test_the_graph_of_lenet_is_there(tmp_path):
    folder = new_folder(tmp_path)
    torch.manual_seed(0)
    logged(classifier(lenet5(), image_size=32), folder, graph=True)
    assert seen(folder).Tags()["graph"]
    text = str(seen(folder).Graph())
    assert "Conv2d" in text or "conv" in text


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("this model\ncannot be traced")
        return self.linear(x.flatten(1))


def test_a_model_that_cannot_be_traced_goes_without_a_graph_and_the_log_says_so(tmp_path):
    folder = new_folder(tmp_path)
    results = logged(classifier(Untraceable()), folder, graph=True)
    assert results["steps"] == 1
    assert not seen(folder).Tags()["graph"]
    log = (folder.path / "log.txt").read_text("utf-8")
    assert "no model graph in TensorBoard: this model" in log


@pytest.mark.parametrize("kind", KINDS[:4])
def test_tensorboard_changes_nothing_about_a_run(kind, tmp_path):
    found = []
    for wanted in (False, True):
        trainer, callbacks = build(kind)
        rows, folder = Rows(), new_folder(tmp_path)
        if wanted:
            logged(trainer, folder, graph=True, callbacks=[*callbacks, rows])
        else:
            trainer.fit(folder=folder, callbacks=[*callbacks, rows])
        assert trainer.task.model.training
        found.append(rows.rows)
    assert found[0] == found[1]


def test_nothing_is_written_to_the_terminal(tmp_path, capfd):
    logged(classifier(Untraceable()), new_folder(tmp_path), graph=True)
    logged(classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), new_folder(tmp_path))
    out, err = capfd.readouterr()
    assert out == ""
    assert "Error" not in err


# --------------------------------------------------------------------------------- resume


class Killed(BaseException):
    pass


class Kill(Callback):
    """Ends the run as a kill does: nothing is saved or closed; what was written stays."""

    def __init__(self, *, step=None, evaluation=None, split="val"):
        self.step, self.evaluation, self.split = step, evaluation, split

    def kill(self, trainer):
        for callback in trainer.callbacks:
            if isinstance(callback, TensorBoard):
                callback.state_dict()  # flushes: the worst that a dead process leaves behind
        trainer.callbacks.clear()  # so that nobody hears of the end
        raise Killed

    def on_step_end(self, trainer):
        if trainer.step == self.step:
            self.kill(trainer)

    def on_evaluation_end(self, trainer, split, metrics):
        if (split, trainer.step) == (self.split, self.evaluation):
            self.kill(trainer)


@pytest.mark.parametrize(
    "kill",
    [
        {"step": 1},  # the only checkpoint is that of the beginning
        {"step": 8},
        {"step": 11},
        {"evaluation": 4},
        {"evaluation": 12},  # a checkpoint of this very step stands, the evaluation not in it
        {"evaluation": 18, "split": "test"},
    ],
    ids=str,
)
def test_a_killed_and_resumed_run_has_each_step_once_in_every_curve(kill, tmp_path):
    options = {"epochs": 3, "evaluate_every": 4, "checkpoints": {"every_steps": 3}}
    options["train_metrics"] = True
    whole, parts = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    logged(trainer_of(**options), whole, images_every=1)
    with pytest.raises(Killed):
        logged(trainer_of(**options), parts, callbacks=[Kill(**kill)], images_every=1)
    logged(trainer_of(**options), RunFolder(parts.path), resume=True, images_every=1)
    for split in ("", "val", "test"):
        tags = seen(whole, split).Tags()["scalars"]
        for tag in {tag for tag in tags if not tag.startswith("system/")}:
            assert curve(parts, split, tag) == curve(whole, split, tag), (split, tag)
        assert images(parts, split) == images(whole, split)
    assert read_rows(parts.path) == read_rows(whole.path)


def read_in_python(folder):
    """The curves as TensorBoard itself reads them with `--load_fast=false`."""
    from tensorboard.backend.event_processing.data_ingester import LocalDataIngester

    flags = SimpleNamespace(
        logdir=str(folder),
        logdir_spec="",
        max_reload_threads=1,
        purge_orphaned_data=True,
        reload_interval=0,
        reload_multifile=False,
        reload_task="blocking",
        samples_per_plugin={"scalars": 0},
        detect_file_replacement=None,
    )
    ingester = LocalDataIngester(flags)
    ingester.start()
    return scalars(ingester.data_provider)


def read_fast(folder):
    """The curves as TensorBoard's data server reads them."""
    ingesters = pytest.importorskip("tensorboard.data.server_ingester")
    grpc_util = pytest.importorskip("tensorboard.util.grpc_util")
    try:
        binary = ingesters.get_server_binary()
    except ingesters.NoDataServerError as error:
        pytest.skip(str(error))
    ingester = ingesters.SubprocessServerDataIngester(
        server_binary=binary,
        logdir=str(folder),
        reload_interval=0,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
        samples_per_plugin={"scalars": 0},
    )
    ingester.start()
    try:
        # It answers while it is still reading.
        found, deadline = {}, time.monotonic() + 30
        while time.monotonic() < deadline:
            time.sleep(0.3)
            before, found = found, scalars(ingester.data_provider)
            if found and found == before:
                break
        return found
    finally:
        ingester._stdin_handle.close()  # with which the server ends


def scalars(provider):
    from tensorboard.context import RequestContext

    series = provider.read_scalars(
        RequestContext(), experiment_id="", plugin_name="scalars", downsample=10**6
    )
    return {
        (run, tag): [(point.step, point.value) for point in points]
        for run, tags in series.items()
        for tag, points in tags.items()
        if not tag.startswith("system/")
    }


@pytest.mark.parametrize("read", [read_in_python, read_fast])
@pytest.mark.parametrize("clock", ["runs", "stands", "goes back"])
def test_both_readers_show_each_step_once_after_each_kill(read, clock, tmp_path, monkeypatch):
    options = {"epochs": 3, "evaluate_every": 4, "checkpoints": {"every_steps": 3}}
    whole, parts = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    now = iter(range(2 * 10**9, 10**9, -1000) if clock == "goes back" else [])
    times = {"runs": time.time, "stands": lambda: 1.5e9, "goes back": lambda: float(next(now))}
    monkeypatch.setattr(event_files, "time", SimpleNamespace(time=times[clock]))
    logged(trainer_of(**options), whole)
    with pytest.raises(Killed):
        logged(trainer_of(**options), parts, callbacks=[Kill(step=8)])
    with pytest.raises(Killed):
        again = {"resume": True, "callbacks": [Kill(evaluation=12)]}
        logged(trainer_of(**options), RunFolder(parts.path), **again)
    logged(trainer_of(**options), RunFolder(parts.path), resume=True)
    expected = read(whole.path)
    assert [step for step, _ in expected[".", "loss"]] == list(range(1, 19))
    assert [step for step, _ in expected["val", "loss"]] == [4, 8, 12, 16, 18]
    assert read(parts.path) == expected


def test_a_file_has_a_number_above_whatever_lies_there(tmp_path):
    later = tmp_path / f"events.out.tfevents.{2**33}.host.12.0"
    later.write_bytes(b"")
    (tmp_path / "events.out.tfevents.profile").write_bytes(b"")
    event_files.EventFiles(tmp_path).close()
    assert max(tmp_path.glob("*.tfevents.[0-9]*")).name == f"events.out.tfevents.{2**33 + 1}"


def test_a_prolonged_run_goes_on_with_its_curves(tmp_path):
    whole, parts = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    logged(trainer_of(epochs=3), whole)
    logged(trainer_of(epochs=1), parts)
    logged(trainer_of(epochs=3), parts, resume=True)
    for split, name in (("", "loss"), ("val", "loss"), ("test", "metrics/accuracy")):
        assert curve(parts, split, name) == curve(whole, split, name)


def test_a_run_may_be_resumed_with_tensorboard_that_it_did_not_have(tmp_path):
    folder = new_folder(tmp_path)
    with pytest.raises(Interrupted):
        trainer_of(epochs=2).fit(folder=folder, callbacks=[At(8, stop)])
    logged(trainer_of(epochs=2), folder, resume=True)
    assert [step for step, _ in curve(folder, "", "loss")] == [9, 10, 11, 12]


def test_event_files_lie_in_the_run_folder_alone(tmp_path):
    folder = new_folder(tmp_path)
    logged(trainer_of(epochs=1), folder, config=CONFIG)
    found = [
        os.path.relpath(path, folder.path)
        for path, _, files in os.walk(folder.path)
        if any("tfevents" in file for file in files)
    ]
    assert sorted(found) == [".", "test", "val"]
