import itertools
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import yaml

from zoo.app.rebuild import load as load_run
from zoo.config import compose as composition
from zoo.config.compose import check, complete
from zoo.config.errors import ConfigError
from zoo.config.overrides import GROUPS, expand, options, prepare, quoted
from zoo.config.run_config import dump, load
from zoo.config.run_config import merge as merge_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*/**/*.yaml"))
EXPERIMENTS = sorted(f.stem for f in (CONFIGS / "experiment").glob("*.yaml"))
DEBUG = sorted(f.stem for f in (CONFIGS / "debug").glob("*.yaml"))

# What an option needs beside it to be a whole configuration.
WITH = {"data=image_folder": ["data.root=images"]}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)


def recipe(*arguments, **named):
    return composition.compose(*arguments, **named)


def compose(*arguments, **named):
    return recipe(*arguments, **named).config


def merge(*arguments):
    return merge_recipe(*arguments).config


@cache
def composed(*words):
    return compose(words)


def option_of(file):
    group = file.relative_to(CONFIGS).parts[0]
    return f"{group}={file.relative_to(CONFIGS / group).with_suffix('').as_posix()}"


@pytest.mark.parametrize("word", [option_of(f) for f in FILES])
def test_every_option_of_every_group_composes_to_a_checked_configuration(word):
    rest = [] if word.startswith("experiment=") else ["experiment=null"]
    made = recipe([word, *rest, *WITH.get(word, [])])
    config = made.config
    for component in (made.model, made.task):
        assert component.auto == tuple(n for n, v in component.node.items() if v == "auto")
    assert list(config) == [
        *("name", "seed", "data", "model", "task", "optimizer", "schedule"),
        *("freeze", "trainer", "callbacks", "logger", "paths"),
    ]
    assert yaml.safe_load(dump(config)) == config


def test_every_group_has_a_folder_and_every_folder_is_a_group():
    assert {f.name for f in CONFIGS.iterdir() if f.is_dir()} == set(GROUPS)
    assert all(options(group) for group in GROUPS)


@pytest.mark.parametrize("file", FILES, ids=option_of)
def test_every_option_says_in_its_first_comment_what_it_is(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines[:2] if line.startswith("# ") and "@package" not in line]
    assert comments
    # A command is one line, to be copied whole, and so is a result, which a program writes.
    assert all(len(line) <= 120 for line in lines if not line.startswith(("# Run:", "# Result:")))


def test_no_argument_means_the_first_experiment():
    config = compose([])
    assert config == compose(["experiment=lenet_digits"])
    assert config["name"] == "lenet_digits"
    assert config["model"]["_target_"] == "zoo.models.vision.lenet.lenet5"
    assert config["data"]["_target_"] == "zoo.data.images.digits.Digits"


def test_values_alone_are_laid_over_the_first_experiment():
    config = compose(["optimizer.lr=0.5", "schedule=constant"])
    assert config["name"] == "lenet_digits"
    assert config["optimizer"]["lr"] == 0.5
    assert config["schedule"] == {"_target_": "zoo.training.schedules.Constant"}
    assert config["trainer"]["epochs"] == compose([])["trainer"]["epochs"]


@pytest.mark.parametrize("words", [["experiment=null"], ["model=lenet5"], ["data=digits"]])
def test_model_data_or_no_experiment_means_plain_defaults(words):
    config = compose(words)
    assert config["name"] == "lenet5_digits"
    assert config["trainer"]["epochs"] == 10
    assert config["optimizer"]["lr"] == 1e-3
    assert config["data"]["augment"] is False


def test_model_over_a_named_experiment_keeps_the_rest_of_it():
    config = compose(["experiment=lenet_digits", "model=mlp"])
    assert config["model"]["_target_"] == "zoo.models.mlp.MLP"
    assert config["data"]["augment"] is True
    assert config["name"] == "lenet_digits"


def test_values_reach_the_configuration_in_every_part():
    words = {
        "seed": 7,
        "data.batch_size": 12,
        "model.num_classes": 11,
        "task.label_smoothing": 0.25,
        "optimizer.weight_decay": 0.5,
        "schedule.warmup_steps": 3,
        "trainer.clip_norm": 1.5,
        "callbacks.checkpoint.top_k": 4,
        "callbacks.early_stopping.patience": 5,
        "logger.console": "off",
        "paths.runs_dir": "elsewhere",
    }
    config = compose([f"{key}={value}" for key, value in words.items()])
    for key, value in words.items():
        node = config
        for part in key.split("."):
            node = node[part]
        assert node == value, key


def test_what_the_signature_has_and_the_file_has_not_is_set_without_a_plus():
    config = compose(["optimizer.amsgrad=true", "data.split_seed=3", "trainer.threads=1"])
    assert config["optimizer"]["amsgrad"] is True
    assert config["data"]["split_seed"] == 3
    assert config["trainer"]["threads"] == 1
    assert config == compose(
        ["+optimizer.amsgrad=true", "++data.split_seed=3", "trainer.threads=1"]
    )


def test_fixed_part_is_complete_and_its_integers_are_numbers_where_numbers_are_asked_for():
    made = recipe(["trainer.clip_norm=1", "callbacks.checkpoint.every_minutes=5"])
    config, settings = made.config, made.settings
    assert settings.trainer.clip_norm == 1.0
    assert type(config["trainer"]["clip_norm"]) is float
    assert type(config["callbacks"]["checkpoint"]["every_minutes"]) is float
    assert set(config["trainer"]) == set(vars(settings.trainer))
    assert config["callbacks"]["checkpoint"]["monitor"] == "auto"


def test_values_of_every_kind_are_parsed_as_hydra_does():
    config = compose(
        [
            "model=mlp",
            "model.hidden_sizes=[3, 4]",
            "optimizer.lr=1e-2",
            "optimizer.eps=1.0e-9",
            "trainer.epochs=null",
            "trainer.steps=7",
            "name=a-b.c",
            "paths.data_dir='a b=c,d'",
        ]
    )
    assert config["model"]["hidden_sizes"] == [3, 4]
    assert config["optimizer"]["lr"] == 0.01
    assert config["optimizer"]["eps"] == 1e-9
    assert config["trainer"]["epochs"] is None
    assert config["name"] == "a-b.c"
    assert config["paths"]["data_dir"] == "a b=c,d"


def test_one_value_may_refer_to_another():
    config = compose(["data.batch_size=24", "trainer.log_every=${data.batch_size}"])
    assert config["trainer"]["log_every"] == 24
    assert "${" not in dump(config)


def test_downloads_go_to_one_folder_that_the_environment_may_name(monkeypatch):
    assert compose([])["paths"]["data_dir"] == "data"
    assert compose(["data=mnist"])["data"]["root"] == "data"
    monkeypatch.setenv("ZOO_DATA_DIR", "/somewhere")
    assert compose([])["paths"]["data_dir"] == "/somewhere"
    assert compose(["data=mnist"])["data"]["root"] == "/somewhere"
    assert compose(["data=mnist", "paths.data_dir=here"])["data"]["root"] == "here"


def test_optimizers_of_two_networks_are_set_one_by_one():
    made = recipe(["experiment=gan_digits", "optimizer.generator.lr=0.5"])
    config = made.config
    assert config["optimizer"]["generator"]["lr"] == 0.5
    assert config["optimizer"]["discriminator"]["lr"] != 0.5
    assert list(made.optimizers) == ["optimizer.generator", "optimizer.discriminator"]
    assert [made.optimizers[key].key for key in made.optimizers] == list(made.optimizers)


def test_parameter_groups_have_patterns_as_keys():
    config = compose(["optimizer.groups={c1.*:{lr:0.1}}"])
    assert config["optimizer"]["groups"] == {"c1.*": {"lr": 0.1}}


@pytest.mark.parametrize(
    ("experiment", "debug"), list(zip(EXPERIMENTS, itertools.cycle(DEBUG), strict=False))
)
def test_debug_presets_go_with_every_experiment_and_under_a_folder_of_their_own(experiment, debug):
    config = compose([f"experiment={experiment}", f"debug={debug}"])
    assert config["name"] == "debug"
    for part in ("data", "model", "task", "optimizer"):
        assert config[part] == composed(f"experiment={experiment}")[part]


def test_what_the_command_line_says_wins_over_a_debug_preset():
    config = compose(["debug=fast", "trainer.epochs=5", "name=mine"])
    assert config["trainer"]["epochs"] == 5
    assert config["trainer"]["limit_train_batches"] == 3
    assert config["name"] == "mine"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["experiment=gan_digits"], "gan_digits"),
        (["experiment=gan_digits", "model.latent_dim=8"], "gan_digits"),
        (["model=mlp", "data=mnist"], "mlp_mnist"),
        (["name=own"], "own"),
        (["debug=null"], "lenet_digits"),
    ],
)
def test_name_is_that_of_the_experiment_or_of_model_and_data(words, name):
    assert compose(words)["name"] == name


def test_printed_configuration_is_itself_a_configuration(command):
    answer = command("--cfg job model=mlp optimizer.lr=0.5")
    assert (answer.code, answer.err, answer.configs) == (0, "", [])
    printed = yaml.safe_load(answer.out)
    assert printed == compose(["model=mlp", "optimizer.lr=0.5"])
    assert complete(printed) == printed
    assert check(printed).config == printed


def test_help_lists_every_option(command):
    answer = command("--help")
    assert answer.code == 0
    for file in FILES:
        assert file.stem in answer.out


def test_training_is_handed_the_composed_configuration(command):
    def train(recipe, place):
        assert recipe.config == compose(["seed=3"])
        assert place.parent == Path("runs/lenet_digits")
        assert place.overrides == ["seed=3"]
        assert recipe.trusted == ()
        raise KeyboardInterrupt

    assert command("seed=3", train).code == 130


def test_sweep_is_the_product_of_all_values():
    assert expand(["model=a,b", "seed=range(2)", "x=[1,2]"]) == [
        ["model=a", "seed=0", "x=[1,2]"],
        ["model=a", "seed=1", "x=[1,2]"],
        ["model=b", "seed=0", "x=[1,2]"],
        ["model=b", "seed=1", "x=[1,2]"],
    ]


def test_glob_stands_for_the_options_of_its_group(tmp_path):
    assert prepare(["model=glob(lenet5*)"], sweep=True)[0] == "model=lenet5,lenet5_1998"
    words = ["model=glob([lenet*,softmax*],exclude=*1998)", "data=digits"]
    assert prepare(words, sweep=True)[0] == "model=lenet5,softmax_regression"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "lenet5_own.yaml").write_text("_target_: zoo.models.mlp.MLP\n")
    assert prepare(["model=glob(lenet5_o*)"], str(tmp_path), sweep=True)[0] == "model=lenet5_own"


def test_text_is_quoted_for_hydra(tmp_path):
    for text in ("plain", "a b", "it's", "a=b,c", "(1)", "back\\slash", "both\\'s"):
        config = compose([f"paths.runs_dir={quoted(text)}"])
        assert config["paths"]["runs_dir"] == text


# ---------------------------------------------------------------- what is laid over a stored run

STORED = ("experiment=gan_digits", "callbacks.early_stopping.patience=3")


@pytest.mark.parametrize(
    "word",
    [
        "trainer.epochs=500",
        "trainer.epochs=null trainer.steps=9",
        "trainer.device=cpu",
        "trainer.accumulate=2",
        "++trainer.threads=1",
        "optimizer.generator.lr=0.5",
        "optimizer.discriminator.eps=1e-7",
        "schedule.warmup_steps=3",
        "callbacks.early_stopping.patience=null",
        "callbacks.checkpoint.top_k=3",
        "logger.console=off",
        "paths.runs_dir=elsewhere",
    ],
)
def test_values_that_leave_the_run_what_it_is_may_change(word):
    config = merge(deepcopy(composed(*STORED)), word.split())
    for one in word.split():
        key, _, value = one.lstrip("+").partition("=")
        node = config
        for part in key.split("."):
            node = node[part]
        assert node == yaml.safe_load(value) or str(node) == value or node == float(value)


def test_data_may_have_moved():
    config = merge(compose(["experiment=mlp_mnist"]), ["data.root=/elsewhere"])
    assert config["data"]["root"] == "/elsewhere"
    words = compose(["experiment=word2vec_text", "data=shakespeare_words"])
    assert merge(words, ["data.text.root=/elsewhere"])["data"]["text"]["root"] == "/elsewhere"


KEPT = [
    ("model.latent_dim=3", "another run"),
    ("task.num_components=3", "another run"),
    ("data.batch_size=3", "another run"),
    ("data.split_seed=3", "another run"),
    ("seed=3", "another run"),
    ("freeze=['*']", "another run"),
    ("model.weights=other.pth", "another run"),
    ("name=x", "another run"),
    ("model=mlp", "keeps its model"),
    ("data=digits", "keeps its data"),
    ("optimizer=sgd", "keeps its optimizer"),
    ("schedule=cosine", "keeps its schedule"),
    ("experiment=lenet_digits", "keeps its experiment"),
    ("debug=fast", "keeps its debug"),
    ("trainer=default", "keeps its trainer"),
    ("model._target_=zoo.models.mlp.MLP", "keeps its"),
    ("optimizer.generator._target_=torch.optim.SGD", "keeps its"),
    ("optimizer.generator={_target_:torch.optim.SGD,lr:0.1}", "keeps its components"),
    ("optimizer.third={_target_:torch.optim.SGD,lr:0.1}", "keeps its components"),
    ("callbacks.extra.mine={_target_:zoo.training.callbacks.Callback}", "keeps its components"),
    ("~trainer.epochs", "only key=value"),
    ("trainer.epochs=3,4", "only key=value"),
    ("trainer.epoch=3", "did you mean 'trainer.epochs'?"),
    ("trainr.epochs=3", "did you mean 'trainer'?"),
    ("foo=3", "foo=3"),
    ("hydra.run.dir=x", "no 'hydra'"),
    ("trainer.epochs.x=3", "trainer.epochs holds no settings"),
    ("trainer.epochs=abc", "an integer or null"),
    ("trainer.epochs=0", "at least 1"),
    ("optimizer.lr=0.1", "optimizer.lr=0.1"),
    ("optimizer.generator.lrr=0.1", "did you mean 'optimizer.generator.lr'?"),
    ("optimizer.generator.lr=nan", "finite"),
    ("trainer.epochs=3 trainer.epochs=4", "given twice"),
]


@pytest.mark.parametrize(("words", "message"), KEPT)
def test_what_would_make_another_run_is_refused(words, message):
    with pytest.raises(ConfigError) as caught:
        merge(deepcopy(composed(*STORED)), words.split())
    assert message in str(caught.value)


# --------------------------------------------------------------- groups and code of one's own

PACKAGE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes: int, in_features: int, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_classes))

    def forward(self, x):
        return self.layers(x)
"""


@pytest.fixture
def own(here, monkeypatch):
    package = here / "my_package"
    (package / "nets").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "nets" / "__init__.py").write_text(PACKAGE)
    configs = here / "my configs, (1)"
    for folder in ("model/deep", "experiment/set"):
        (configs / folder).mkdir(parents=True)
    (configs / "model" / "deep" / "net.yaml").write_text(
        "# Mine.\n_target_: my_package.nets.Net\nnum_classes: auto\nin_features: auto\n"
    )
    (configs / "experiment" / "set" / "mine.yaml").write_text(
        "# @package _global_\n# Mine.\ndefaults:\n  - override /model: deep/net\n"
        "trainer:\n  epochs: 1\n"
    )
    monkeypatch.syspath_prepend(str(here))
    return configs


def test_groups_and_packages_of_ones_own_compose(own):
    config = compose(["model=deep/net"], config_dir=str(own), trusted=["my_package"])
    assert config["model"]["_target_"] == "my_package.nets.Net"
    assert config["name"] == "deep-net_digits"
    words = ["experiment=set/mine", "model.width=3"]
    config = compose(words, config_dir=str(own), trusted=["my_package.nets"])
    assert config["name"] == "set-mine"
    assert config["model"]["width"] == 3
    assert compose(["model=mlp"], config_dir=str(own)) == compose(["model=mlp"])


def test_package_of_ones_own_is_built_only_if_the_command_line_trusts_it(own, command):
    flags = ["--config-dir", str(own), "experiment=set/mine"]
    answer = command(flags)
    assert answer.code == 2
    assert "trusted=[my_package]" in answer.err
    assert command([*flags, "trusted=[my_package]"], stop).code == 130
    assert command([*flags, "trusted=my_package"], stop).code == 130
    assert command([*flags, "trusted=[my_packag]"]).code == 2
    answer = command([*flags, "trusted=[my_package]", "model.widht=3"])
    assert "did you mean 'model.width'?" in answer.err


def stop(recipe, place):
    raise KeyboardInterrupt


# ------------------------------------------------------------------------------ hostile run folders

RAN = "ran"


def hostile(node):
    return {"_target_": "os.system", "command": f"touch {RAN}"} | node


HOSTILE = {
    "model": lambda c: c["model"].update(hostile({})),
    "data": lambda c: c["data"].update(_target_="os.system"),
    "task": lambda c: c["task"].update(_target_="zoo.training.run_folder.os.system"),
    "optimizer": lambda c: c["optimizer"].update(_target_="zoo.training.run_folder.subprocess.run"),
    "schedule": lambda c: c["schedule"].update(_target_="builtins.eval"),
    "an argument": lambda c: c["model"].update(num_classes=hostile({})),
    "an argument's list": lambda c: c["optimizer"].update(betas=[hostile({}), 0.9]),
    "an argument's mapping": lambda c: c["optimizer"].update(groups={"a": {"b": hostile({})}}),
    "a callback": lambda c: c["callbacks"]["extra"].update(mine=hostile({})),
    "a path": lambda c: c["paths"].update(runs_dir=hostile({})),
    "a package of its own": lambda c: c["model"].update(_target_="my_package.nets.Net"),
    "trust in itself": lambda c: (c.update(trusted=["os"]), c["model"].update(hostile({}))),
    "trust in hydra": lambda c: c.update(hydra={"searchpath": ["file:///"]}),
    "recursion": lambda c: c["callbacks"]["extra"].update(mine=c),
    "numbers that are none": lambda c: c["optimizer"].update(lr=float("nan")),
}


@pytest.mark.parametrize("place", HOSTILE)
def test_hostile_run_folder_is_refused_and_runs_nothing(place, own, command, here):
    config = compose([])
    HOSTILE[place](config)
    run = here / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    answer = command("resume=run")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert answer.configs == []
    with pytest.raises(ConfigError):
        load_run(run)
    assert not (here / RAN).exists()
    assert [p.name for p in run.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: !!python/object/apply:os.system [touch ran]\n", "not valid YAML"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "not the configuration of a run"),
        ("", "not the configuration of a run"),
        ("model: {}\n", "not the configuration of a run"),
        (b"\xff\xfe", "not valid YAML"),
    ],
)
def test_stored_configuration_that_is_none_is_refused(content, message, here):
    file = here / "config.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        load(file)
    assert not (here / RAN).exists()


def test_interpolations_of_a_stored_configuration_are_not_resolved(here, monkeypatch):
    monkeypatch.setenv("SECRET", "secret")
    config = compose([])
    config["paths"]["runs_dir"] = "${oc.env:SECRET}"
    (here / "config.yaml").write_text(yaml.safe_dump(config))
    assert load(here / "config.yaml")["paths"]["runs_dir"] == "${oc.env:SECRET}"


def test_stored_run_with_a_trusted_package_goes_on_only_with_that_trust(own, command, here):
    config = compose(["model=deep/net"], config_dir=str(own), trusted=["my_package"])
    run = here / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.pt").touch()
    (run / "config.yaml").write_text(dump(config))
    answer = command("resume=run")
    assert answer.code == 2
    assert "my_package.nets.Net" in answer.err
    assert command("resume=run trusted=[my_package]", stop).code == 130


def test_a_group_of_the_command_line_replaces_the_experiments_whole():
    config = compose(["experiment=lstm_stdlib", "optimizer=sgd", "optimizer.lr=0.3"])
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert config["optimizer"]["lr"] == 0.3
    assert "betas" not in config["optimizer"]
    assert config["schedule"]["warmup_steps"] == 100  # what was not replaced stays


def test_the_experiments_own_option_named_again_keeps_its_values():
    named = compose(["experiment=lstm_stdlib", "optimizer=adamw"])
    assert named["optimizer"] == compose(["experiment=lstm_stdlib"])["optimizer"]
