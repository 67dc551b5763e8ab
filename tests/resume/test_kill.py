"""Runs that are killed (SIGKILL) and resumed equal, bit for bit, those that never were.

More kills than by default: ZOO_TEST_KILLS=20 pytest tests/resume
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.resume.outcomes import assert_same, only_run, outcome, state_of

ROOT = Path(__file__).parents[2]
ALIKE = {  # Another experiment has the same parts, in other sizes or on other digits.
    *("autoencoder_mnist", "made_mnist", "pixel_cnn_mnist", "rbm_mnist", "real_nvp_mnist"),
    "pacdcgan_stacked_mnist",
    *("vae_mnist_long", "vae_mnist_paper", "wgan_gp_mnist_paper", "resnet20_cifar10_paper"),
    "pix2pix_shapes_paper",
    *("gin_proteins", "gin_nci1", "gin_random_graphs", "gin_atlas"),
    *("gatv2_cora", "sage_cora", "appnp_cora", "sgc_cora", "cheb_cora", "gcnii_cora", "mlp_cora"),
    "molecular_fingerprint_mutag",
    *("deep_multiset_proteins", "molecular_fingerprint_nci1"),
    *("gcn_block_model", "knn_digits", "gin_triangles", "deepwalk_les_miserables"),
    *("flow_matching_ring", "real_nvp_ring", "gan_grid", "pacgan_grid", "pixel_cnn_digits"),
    *("joint_autoencoder_digits", "multi_task_penguins", "consistency_digits"),
    *("huber_diabetes", "quantile_diabetes", "gaussian_nll_diabetes", "quantile_noisy_curve"),
    *("svm_digits", "kernel_svm_digits", "cnn_digits", "lasso_diabetes", "logistic_breast_cancer"),
    *("rnn_sentence_polarity", "distil_mnist", "ensemble_digits", "mlp_diabetes"),
    *("mc_dropout_digits", "speedrun_cifar10", "gpt2_124m_speed"),
}
EXPERIMENTS = sorted(
    {path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml")} - ALIKE
)
KILLS = int(os.environ.get("ZOO_TEST_KILLS", "1"))
STEPS = 24
SHRUNK = [
    "trainer.epochs=null",
    f"trainer.steps={STEPS}",
    "trainer.evaluate_every=null",
    "trainer.limit_train_batches=8",
    "trainer.limit_eval_batches=2",
    "trainer.log_every=2",
    "trainer.device=cpu",
    "trainer.threads=1",
    "callbacks.checkpoint.every_steps=3",
    "logger.graph=false",
    "logger.images_every=0",
    "logger.console=lines",
]
# Only to be quicker: what is tested of them does not depend on their size.
SMALLER = {
    "bert_shakespeare": [
        *("model.embed_dim=16", "model.num_heads=2", "model.mlp_dim=32", "model.num_layers=1"),
        "data.sequence_length=8",
    ],
    "adding_problem": [
        *("data.length=20", "data.num_samples=400", "data.eval_samples=64"),
        *("model.hidden_size=8", "model.memory_length=20"),
    ],
    "tcn_adding": [
        *("data.length=20", "data.num_samples=400", "data.eval_samples=64"),
        "model.hidden_channels=[4,4]",
    ],
    **{
        name: ["data.num_samples=600", "data.eval_samples=64", "model.hidden_size=8"]
        for name in ("parity_lstm", "sine_forecasting", "sine_synthesis")
    },
    **{
        name: [
            *("model.embed_dim=16", "model.num_layers=1", "model.num_heads=2"),
            *("data.sequence_length=16", "data.batch_size=4", "task.sample_length=20"),
        ]
        for name in ("gpt_shakespeare", "gpt_shakespeare_small")
    },
    "llama_shakespeare": [
        *("model.embed_dim=16", "model.num_layers=1", "model.num_heads=2"),
        *("model.num_kv_heads=2", "model.mlp_dim=24"),
        *("data.sequence_length=16", "data.batch_size=4", "task.sample_length=20"),
    ],
    "gcnii_cora": ["model.num_layers=4"],
    "gru_shakespeare": ["model.embed_dim=16", "model.hidden_size=16", "task.sample_length=20"],
    "transformer_multi30k": [
        *("data.limit=128", "data.batch_size=8"),
        *("model.embed_dim=16", "model.num_heads=2", "model.mlp_dim=16"),
    ],
    "seq2seq_attention_multi30k": [
        *("data.limit=128", "data.batch_size=8", "task.teacher_forcing=0.5"),
        *("model.embed_dim=8", "model.hidden_size=8"),
    ],
    "copy_seq2seq": [
        *("data.num_samples=500", "data.batch_size=8", "model.embed_dim=8", "model.hidden_size=8"),
    ],
    "reverse_transformer": [
        *("data.num_samples=500", "data.batch_size=8"),
        *("model.embed_dim=16", "model.num_heads=2", "model.mlp_dim=16"),
    ],
    "sort_transformer": [
        *("data.num_samples=500", "data.batch_size=8"),
        *("model.embed_dim=16", "model.num_heads=2", "model.mlp_dim=16"),
    ],
    "word2vec_text": ["model.embed_dim=8", "data.batch_size=32"],
    **{
        name: [
            *("model.channels=[4,4]", "model.num_groups=2", "model.attention_sizes=[]"),
            *("data.batch_size=16", "task.sampling_steps=3"),
        ]
        for name in ("ddpm_digits", "diffusion_mnist", "flow_matching_digits")
    },
    "ddpm_cifar10": [
        *("model.channels=[4,4]", "model.num_groups=2", "model.attention_sizes=[]"),
        *("data.batch_size=8", "task.sampling_steps=3", "data.folder=cifar10_images"),
    ],
    "gan_digits": ["model.hidden_sizes=[32]", "model.maxout_sizes=[16]"],
    "autoencoder_mnist": ["model.hidden_sizes=[16]"],
    "convolutional_autoencoder_mnist": ["model.hidden_channels=[2,2]"],
    **{
        f"{kind}_autoencoder_mnist": ["model.latent_dim=8", "data.batch_size=16"]
        for kind in ("contractive", "denoising", "sparse")
    },
    **{
        name: ["model.hidden_size=8", "task.sample_steps=10", "task.persistent=true"]
        for name in ("rbm_digits", "rbm_mnist")
    },
    **{name: ["model.hidden_sizes=[32]"] for name in ("made_digits", "made_mnist")},
    **{
        name: ["model.hidden_channels=4", "model.num_blocks=1", "data.batch_size=8"]
        for name in ("pixel_cnn_digits", "pixel_cnn_mnist")
    },
    **{
        name: ["model.hidden_channels=4", "data.batch_size=8"]
        for name in ("real_nvp_digits", "real_nvp_mnist")
    },
    "pix2pix_shapes": ["model.base_channels=2", "data.train_size=40", "data.batch_size=2"],
    "resnet20_cifar10": ["data.batch_size=8", "data.folder=cifar10_images"],
    "resnet_mnist": ["data.batch_size=8"],
    "pgd_mnist": ["data.batch_size=8", "task.steps=2"],
    "shallow_convnet_synthetic": ["model.hidden_channels=4", "data.num_samples=96"],
    "iwae_mnist": ["task.samples=3"],
    "conditional_gan_mnist": [
        *("model.latent_size=8", "model.class_size=8", "model.joint_size=16"),
        *("model.image_units=8", "model.joint_units=8", "data.batch_size=20"),
    ],
    "dcgan_mnist": ["model.base_channels=2", "data.batch_size=16"],
    "stacked_mnist": [
        *("model.base_channels=2", "data.batch_size=16"),
        *("data.num_samples=1000", "data.val_samples=100", "data.test_samples=100"),
    ],
    "sage_large": [
        *("data.num_nodes=3000", "data.num_links=9000", "data.train_size=600"),
        *("data.val_size=100", "data.test_size=100", "data.batch_size=32"),
    ],
    "textcnn_sentence_polarity": [
        *("model.embed_dim=8", "model.num_filters=4", "data.batch_size=8", "data.min_frequency=20"),
    ],
    "unet_isbi2012": ["model.base_channels=2", "data.tile_size=32", "data.batch_size=4"],
    "unet_shapes": ["model.base_channels=2", "data.batch_size=4"],
    "lstm_stdlib": ["model.embed_dim=16", "model.hidden_size=16", "task.sample_length=20"],
    "lstm_shakespeare": ["model.embed_dim=16", "model.hidden_size=16", "task.sample_length=20"],
}


def needs_files(name):
    """Whether the data of an experiment have to be downloaded: then they have a `root`."""
    experiment = yaml.safe_load((ROOT / "configs" / "experiment" / f"{name}.yaml").read_text())
    chosen = [e["override /data"] for e in experiment["defaults"] if "override /data" in e]
    data = yaml.safe_load((ROOT / "configs" / "data" / f"{chosen[-1]}.yaml").read_text())
    return "root" in data | data.get("graph", {}) | experiment.get("data", {})


TEACHERS = {  # Of these the run of another experiment is the teacher.
    "distil_digits": ["experiment=lenet_digits", "data.image_size=8", "model=softmax_regression"],
    "noisy_student_digits": ["experiment=noisy_student_digits", "task=classification"],
}


def words(name, runs):
    return [f"experiment={name}", *SHRUNK, *SMALLER.get(name, []), f"paths.runs_dir={runs}"]


class Uninterrupted:
    """Runs that nothing stops, one of each experiment, and what they leave behind."""

    def __init__(self, run, folder):
        self.run, self.folder = run, folder
        self.found = {}
        self.teachers = {}

    def words(self, name, runs):
        """The words of a run, with its teacher where it has one."""
        if name in TEACHERS and name not in self.teachers:
            place, log = self.folder / f"{name}.teacher", self.folder / f"{name}.teacher.log"
            code = self.run([*TEACHERS[name], *SHRUNK, f"paths.runs_dir={place}"], log)
            assert code == 0, log.read_text("utf-8")
            self.teachers[name] = [f"task.teacher={only_run(place)}"]
        return [*words(name, runs), *self.teachers.get(name, [])]

    def __call__(self, name):
        if name not in self.found:
            runs, log = self.folder / name, self.folder / f"{name}.log"
            files = self.folder / f"{name}.files"
            code = self.run(self.words(name, runs), log, files=str(files), below=str(runs))
            text = log.read_text("utf-8")
            if needs_files(name) and "zoo.data" not in text and code == 1:
                self.found[name] = text.strip().splitlines()[-1]
            else:
                assert code == 0, text
                self.found[name] = outcome(only_run(runs)), files.read_text().splitlines()
        if isinstance(self.found[name], str):
            pytest.skip(f"the data of {name} are not there: {self.found[name]}")
        return self.found[name]


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    return Uninterrupted(run, tmp_path_factory.mktemp("uninterrupted"))


def first_checkpoint(files):
    """Number of changes of files until there is a checkpoint."""
    return next(i for i, line in enumerate(files, 1) if line == "os.rename last.pt")


def moment(choice, kind, files):
    """When a run is to be killed: at an update, at a change of a file, or halfway in a save."""
    if kind == 0:
        return {"signals": [[choice.randrange(1, STEPS), "SIGKILL"]]}
    if kind == 1:
        return {"kill_at_file": choice.randrange(first_checkpoint(files) + 1, len(files) + 1)}
    return {"kill_in_save": choice.randrange(2, 9)}


def finish(run, path, log, expected, **moments):
    """Resumes a run, killing it once more where asked for, and compares."""
    if moments:
        run([f"resume={path}"], log, **moments)
    if state_of(path) != "finished":
        assert run([f"resume={path}"], log) == 0, Path(log).read_text("utf-8")
    assert_same(path, expected)


def marked(name):
    marks = [pytest.mark.slow, *([pytest.mark.data] if needs_files(name) else [])]
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("kill", range(KILLS))
@pytest.mark.parametrize("name", [marked(name) for name in EXPERIMENTS])
def test_an_experiment_killed_at_a_random_moment_and_resumed_equals_one_never_killed(
    name, kill, run, uninterrupted, tmp_path
):
    expected, files = uninterrupted(name)
    choice = random.Random(f"{name} {kill}")
    first = moment(choice, (EXPERIMENTS.index(name) + kill) % 3, files)
    runs, log = tmp_path / "runs", tmp_path / "log"
    code = run(uninterrupted.words(name, runs), log, **first, below=str(runs))
    assert code == -signal.SIGKILL, log.read_text("utf-8")
    path = only_run(runs)
    assert state_of(path) == "dead"
    finish(run, path, log, expected)


CHEAP = "gcn_karate"


@pytest.mark.slow
def test_a_run_killed_again_and_again_at_changes_of_files_equals_one_never_killed(
    run, uninterrupted, tmp_path
):
    expected, files = uninterrupted(CHEAP)
    choice = random.Random("files")
    runs, log = tmp_path / "runs", tmp_path / "log"
    start = first_checkpoint(files) + choice.randrange(1, 20)
    assert run(words(CHEAP, runs), log, kill_at_file=start, below=str(runs)) == -signal.SIGKILL
    path = only_run(runs)
    for _ in range(5 + 5 * KILLS):
        at = choice.randrange(8, 60)
        if run([f"resume={path}"], log, kill_at_file=at, below=str(runs)) == 0:
            break
    finish(run, path, log, expected)


@pytest.mark.slow
def test_a_run_killed_at_every_change_of_files_around_a_save_equals_one_never_killed(
    run, uninterrupted, tmp_path
):
    # From one best checkpoint to the next, with an evaluation in between.
    expected, files = uninterrupted(CHEAP)
    saves = [i for i, line in enumerate(files, 1) if line == "os.rename last.pt"]
    moments = range(saves[3] + 1, saves[5] + 1)
    assert len(moments) >= 8
    for at in list(moments)[:: 1 if KILLS > 1 else 3]:
        runs, log = tmp_path / f"runs{at}", tmp_path / "log"
        assert run(words(CHEAP, runs), log, kill_at_file=at, below=str(runs)) == -signal.SIGKILL
        finish(run, only_run(runs), log, expected)


@pytest.mark.slow
def test_a_run_killed_after_its_last_step_evaluates_and_reports_when_resumed(
    run, uninterrupted, tmp_path
):
    expected, files = uninterrupted(CHEAP)
    for name in ("results.json", "status.json"):
        at = max(i for i, line in enumerate(files, 1) if line == f"os.rename {name}")
        runs, log = tmp_path / f"runs{at}", tmp_path / "log"
        run(words(CHEAP, runs), log, kill_at_file=at, below=str(runs))
        assert state_of(only_run(runs)) == "dead"
        finish(run, only_run(runs), log, expected)


def test_a_run_killed_before_its_first_checkpoint_says_to_start_anew(run, uninterrupted, tmp_path):
    _, files = uninterrupted(CHEAP)
    runs, log, second = tmp_path / "runs", tmp_path / "log", tmp_path / "second"
    run(words(CHEAP, runs), log, kill_at_file=first_checkpoint(files), below=str(runs))
    path = only_run(runs)
    assert run([f"resume={path}"], second) == 1
    last = second.read_text("utf-8").strip().splitlines()[-1]
    assert last.startswith("error: no checkpoint is left to resume from")
    assert last.endswith("start the run anew")


def number_of_rows(runs):
    return sum(file.read_bytes().count(b"\n") for file in runs.rglob("metrics.jsonl"))


@pytest.mark.slow
def test_train_py_killed_at_random_times_and_resumed_equals_one_never_killed(tmp_path):
    # No process of ours in between: the command that a user types, and `kill -9`.
    long = [word.replace(f"steps={STEPS}", "steps=120") for word in SHRUNK]
    command = [sys.executable, str(ROOT / "train.py")]
    log = open(tmp_path / "log", "w")  # noqa: SIM115 - of several processes
    choice = random.Random("times")

    def start(*arguments):
        return subprocess.Popen([*command, *arguments], stdout=log, stderr=log, cwd=tmp_path)

    def text():
        return (tmp_path / "log").read_text("utf-8")

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert start("experiment=lenet_digits", *long, f"paths.runs_dir={whole}").wait() == 0, text()
    process = start("experiment=lenet_digits", *long, f"paths.runs_dir={parts}")
    for row in sorted(choice.sample(range(2, 60), 2 + KILLS)):
        while process.poll() is None and number_of_rows(parts) < row:
            time.sleep(0.001)
        time.sleep(choice.uniform(0.0, 0.02))
        process.kill()
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL, text()
        process = start(f"resume={only_run(parts)}")
    assert process.wait() == 0, text()
    log.close()
    assert_same(only_run(parts), outcome(only_run(whole)))
