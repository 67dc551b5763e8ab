"""Who wins: the command line, then debug, the experiment, the group's file, configs/train.yaml."""

import pytest
import yaml

from zoo.config.compose import COMPONENTS, FIXED, compose

TOP_LEVEL = {*FIXED, *COMPONENTS}

# For each top-level key: a setting of it, and values of the group, experiment, debug and the line.
VALUES = {
    "name": ("name", None, "b", "c", "d"),
    "seed": ("seed", None, 1, 2, 3),
    "freeze": ("freeze", None, ["b"], ["c"], ["d"]),
    "data": ("data.batch_size", 2, 3, 4, 5),
    "model": ("model.num_classes", 2, 3, 4, 5),
    "task": ("task.label_smoothing", 0.1, 0.2, 0.3, 0.4),
    "optimizer": ("optimizer.lr", 0.1, 0.2, 0.3, 0.4),
    "schedule": ("schedule.warmup_steps", 2, 3, 4, 5),
    "trainer": ("trainer.epochs", 2, 3, 4, 5),
    "callbacks": ("callbacks.checkpoint.top_k", 2, 3, 4, 5),
    "logger": ("logger.images_every", 2, 3, 4, 5),
    "paths": ("paths.runs_dir", "a", "b", "c", "d"),
}
OPTIONS = {
    "data": "digits",
    "model": "lenet5",
    "task": "classification",
    "optimizer": "adamw",
    "schedule": "cosine",
}


def value_of(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def write(path, content, package=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(package + yaml.safe_dump(content))


def nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def test_every_top_level_key_is_in_the_table():
    assert set(VALUES) == TOP_LEVEL


@pytest.mark.parametrize("top", sorted(TOP_LEVEL))
def test_each_place_wins_over_those_behind_it(top, tmp_path):
    key, in_group, in_experiment, in_debug, on_line = VALUES[top]
    package = "# @package _global_\n"
    write(tmp_path / "experiment" / "mine.yaml", nested(key, in_experiment), package)
    write(tmp_path / "debug" / "mine.yaml", nested(key, in_debug), package)

    def composed(*words):
        words = [word for word in words if word]
        return value_of(compose(words, config_dir=str(tmp_path)).config, key)

    default = value_of(compose(["model=lenet5"]).config, key)
    if in_group is not None:
        # Without _self_ at its end a file of one's own would lose against the one it builds on.
        content = nested(key, in_group)[top] | {"defaults": [OPTIONS.get(top, "default"), "_self_"]}
        write(tmp_path / top / "mine.yaml", content)
        assert (
            composed("model=lenet5" if top != "model" else "", f"{top}=mine") == in_group != default
        )
    line = f"{key}={on_line}" if not isinstance(on_line, list) else f"{key}=[{on_line[0]}]"
    assert composed("experiment=mine") == in_experiment != default
    assert composed("experiment=mine", "debug=mine") == in_debug
    assert composed("experiment=mine", "debug=mine", line) == on_line
    assert composed("model=lenet5", "debug=mine") == in_debug


def test_group_chosen_on_the_line_wins_with_what_its_file_says(tmp_path):
    package = "# @package _global_\n"
    said = {"logger": {"tensorboard": True, "images_every": 3}, "trainer": {"epochs": 7}}
    write(tmp_path / "experiment" / "mine.yaml", said, package)
    config = compose(["experiment=mine", "logger=off"], config_dir=str(tmp_path)).config
    assert config["logger"]["tensorboard"] is False
    assert config["logger"]["console"] == "off"
    assert config["logger"]["images_every"] == 3  # of which the file says nothing
    assert config["trainer"]["epochs"] == 7
    words = ["experiment=mine", "logger=off", "logger.tensorboard=true"]
    config = compose(words, config_dir=str(tmp_path)).config
    assert config["logger"]["tensorboard"] is True


def test_debug_chooses_over_the_experiment_and_the_line_over_both(tmp_path):
    package = "# @package _global_\n"
    for group, option in (("experiment", "adam"), ("debug", "sgd")):
        content = {"defaults": [{"override /optimizer": option}, "_self_"], "seed": 4}
        write(tmp_path / group / "mine.yaml", content, package)

    def target(*words):
        return compose(words, config_dir=str(tmp_path)).config["optimizer"]["_target_"]

    assert target("experiment=mine") == "torch.optim.Adam"
    assert target("experiment=mine", "debug=mine") == "torch.optim.SGD"
    assert target("experiment=mine", "debug=mine", "optimizer=rmsprop") == "torch.optim.RMSprop"
