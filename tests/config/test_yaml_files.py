"""YAML that is larger than it looks, and files of run folders that hold something else."""

import time

import pytest
import yaml

import evaluate
import train
from zoo.config.compose import compose
from zoo.config.errors import ConfigError
from zoo.config.overrides import options
from zoo.config.run_config import load, stored_words
from zoo.config.yaml_files import check_yaml
from zoo.training.run_folder import RunFolder

BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
ITSELF = "a: &a [1, *a]\n"
DEEP = "a: " + "[" * 3000 + "]" * 3000 + "\n"
TINY = (
    *("trainer.epochs=1", "trainer.limit_train_batches=1", "trainer.limit_eval_batches=1"),
    *("logger=off", "model=softmax_regression", "data=digits"),
)


@pytest.mark.parametrize("text", [BOMB, DEEP, "x" * (2 << 20)], ids=["bomb", "deep", "large"])
def test_configuration_that_nobody_could_read_is_refused_at_once(text, tmp_path):
    begin = time.monotonic()
    own = tmp_path / "own" / "model"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml is no configuration"):
        compose(["model=mine"], config_dir=str(tmp_path / "own"))
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml is no configuration"):
        load(tmp_path / "config.yaml")
    (tmp_path / "overrides.yaml").write_text(text)
    assert stored_words(tmp_path) == []
    assert time.monotonic() - begin < 20  # a hang is what this is about, not speed


def test_what_is_repeated_a_few_times_is_fine(tmp_path):
    shared = [1, 2, 3]
    file = tmp_path / "few.yaml"
    file.write_text(yaml.safe_dump({"a": shared, "b": shared, "c": {"d": shared}}))
    assert "&id001" in file.read_text()
    check_yaml(file)
    file.write_text(ITSELF)
    check_yaml(file)  # Small; that it holds itself is refused where it is read.


@pytest.mark.parametrize("content", ["[1]", "3", "null", '"text"', "[" * 5000, "{", ""])
def test_json_that_is_no_object_is_as_good_as_none(content, tmp_path):
    (tmp_path / "status.json").write_text(content)
    folder = RunFolder(tmp_path)
    assert folder.read("status.json") == folder.read_status() == {}


@pytest.mark.parametrize("content", ["{", "[1, 2]", "a: 1", "- [x]", "\x00"])
def test_words_that_are_damaged_are_none(content, tmp_path):
    (tmp_path / "overrides.yaml").write_text(content)
    assert stored_words(tmp_path) == []


def test_run_folder_with_damaged_small_files_is_evaluated_and_goes_on(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert train.main(list(TINY)) == 0
    folder = capsys.readouterr().out.splitlines()[-1]
    for file in ("status.json", "data.json", "overrides.yaml"):
        (tmp_path / folder / file).write_text("[1]")
    assert evaluate.main([f"run={folder}"]) == 0
    assert train.main([f"resume={folder}", "trainer.epochs=2", "trainer.steps=2"]) == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.fixture
def language_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [w for w in TINY if not w.startswith(("model=", "data="))]
    small = ["model.hidden_size=8", "model.embed_dim=8", "data.sequence_length=16"]
    assert train.main(["experiment=lstm_stdlib", "trainer.steps=1", *words, *small]) == 0
    return tmp_path / capsys.readouterr().out.splitlines()[-1]


def test_vocabulary_in_another_order_is_refused_everywhere(language_run, capsys):
    file = language_run / "vocabulary.json"
    text = file.read_text()
    lines = text.splitlines()
    entries = [
        i for i, line in enumerate(lines) if line.strip().startswith('"') and ":" not in line
    ]
    first, second = entries[3], entries[4]
    lines[first], lines[second] = lines[second], lines[first]
    file.write_text("\n".join(lines) + "\n")
    assert file.read_text() != text
    for program, words in (
        (train.main, [f"resume={language_run}", "trainer.steps=2"]),
        (evaluate.main, [f"run={language_run}"]),
    ):
        assert program(words) == 2
        err = capsys.readouterr().err
        assert "vocabulary.json is not as this run wrote it" in err and err.count("\n") == 1
    file.write_text(text)
    assert evaluate.main([f"run={language_run}"]) == 0
    assert train.main([f"resume={language_run}", "trainer.epochs=2", "trainer.steps=2"]) == 0
    assert evaluate.main([f"run={language_run}"]) == 0
    # A run of a version that kept no digests is not checked.
    (language_run / "data.json").write_text("{}")
    file.write_text("\n".join(lines) + "\n")
    assert evaluate.main([f"run={language_run}"]) == 0


SEGMENTATION = "experiment=unet_shapes"
IDLE = [
    (["logger.layer_gradients=true", "logger.tensorboard=false"], "logger.layer_gradients=true"),
    (["logger=off", "logger.layer_gradients=true"], "logger.layer_gradients=true"),
    (["callbacks.early_stopping.min_delta=0.1"], "callbacks.early_stopping.min_delta=0.1"),
    ([SEGMENTATION, "task.dice_weight=2", "task.loss=cross_entropy"], "task.dice_weight=2"),
    ([SEGMENTATION, "task.focal_gamma=3", "task.loss=dice"], "task.focal_gamma=3"),
    ([SEGMENTATION, "task.tile_overlap=0.5"], "task.tile_overlap=0.5"),
]


@pytest.mark.parametrize(("words", "word"), IDLE, ids=lambda value: str(value)[:40])
def test_word_that_changes_nothing_is_named_with_the_reason(words, word):
    with pytest.warns(UserWarning, match=f"{word} has no effect: "):
        compose(words)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "words",
    [
        ["logger.layer_gradients=true"],
        ["callbacks.early_stopping.min_delta=0.1", "callbacks.early_stopping.patience=2"],
        [SEGMENTATION, "task.dice_weight=2", "task.loss=cross_entropy_dice"],
        [SEGMENTATION, "task.focal_gamma=3", "task.loss=focal"],
        [SEGMENTATION, "task.tile_overlap=0.5", "task.tile_size=32"],
        [SEGMENTATION, "logger=off", "logger.graph=false", "logger.layer_gradients=false"],
    ],
    ids=str,
)
def test_word_that_changes_something_is_not(words):
    compose(words)


HEAD = "# @package _global_\ndefaults: [unet_shapes]\n"
IDLE_FILES = [
    ("experiment", "task: {dice_weight: 2.0}", [], "task.dice_weight=2.0"),
    ("experiment", "task: {loss: dice, focal_gamma: 3.0}", [], "task.focal_gamma=3.0"),
    ("experiment", "task: {dice_weight: 2.0}", ["task.loss=dice"], "task.dice_weight=2.0"),
    (
        "experiment",
        "callbacks: {early_stopping: {min_delta: 0.1}}",
        [],
        "callbacks.early_stopping.min_delta=0.1",
    ),
    ("logger", "{layer_gradients: true, tensorboard: false}", [], "logger.layer_gradients=true"),
    ("task", "defaults: [segmentation]\ntile_overlap: 0.5", [], "task.tile_overlap=0.5"),
]


def composed_with_file(tmp_path, group, text, words):
    file = tmp_path / group / "mine.yaml"
    file.parent.mkdir()
    file.write_text(HEAD + text if group == "experiment" else text)
    first = [] if group == "experiment" else [SEGMENTATION]
    return compose([*first, f"{group}=mine", *words], config_dir=str(tmp_path))


@pytest.mark.parametrize(("group", "text", "words", "key"), IDLE_FILES)
def test_value_of_a_file_that_changes_nothing_is_named_with_the_reason(
    tmp_path, group, text, words, key
):
    with pytest.warns(UserWarning, match=f"{key} has no effect: ") as said:
        composed_with_file(tmp_path, group, text, words)
    assert len(said) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("group", "text"),
    [
        ("experiment", "task: {dice_weight: 1.0, focal_gamma: 2, tile_overlap: 0.25}"),
        ("experiment", "task: {loss: cross_entropy_dice, dice_weight: 2.0}"),
        ("experiment", "callbacks: {early_stopping: {min_delta: 0.1, patience: 3}}"),
        ("logger", "{layer_gradients: true}"),
    ],
)
def test_value_of_a_file_that_changes_something_or_is_the_default_is_not(tmp_path, group, text):
    composed_with_file(tmp_path, group, text, [])


@pytest.mark.slow
@pytest.mark.filterwarnings("error:.*has no effect")
def test_no_experiment_of_ours_sets_what_nothing_reads():
    for name in options("experiment"):
        compose([f"experiment={name}"])


@pytest.mark.filterwarnings("error")
def test_word_for_a_whole_mapping_is_taken_apart():
    compose(["callbacks.early_stopping={patience:null}"])
    with pytest.warns(UserWarning, match="early_stopping.min_delta=0.1 has no effect: "):
        compose(["callbacks.early_stopping={min_delta:0.1}"])
