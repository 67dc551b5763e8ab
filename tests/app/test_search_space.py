"""The file of a search's space: what it means, and what is refused."""

import pytest
import yaml

from zoo.app.searching.space import load_space, read_space
from zoo.config.errors import ConfigError

TEXT = """
optimizer: [adamw, sgd]
optimizer.lr: {low: 1e-4, high: 0.1, log: true}
optimizer.momentum: {low: 0, high: 0.9, when: {optimizer: sgd}}
optimizer.nesterov: {choices: [true, false], when: {optimizer: sgd}}
model.hidden_sizes: [[8], [8, 4], "[4,2]"]
data.batch_size: {low: 16, high: 64, step: 16, int: true}
"""


def space(text):
    return read_space(yaml.safe_load(text))


def test_a_parameter_exists_only_where_its_condition_holds():
    least = {"optimizer": "adamw"}
    found = space(TEXT).words(lambda p: least.get(p.key, p.ends()[0]))
    assert found == [
        *("optimizer=adamw", "optimizer.lr=0.0001"),
        *("model.hidden_sizes=[8]", "data.batch_size=16"),
    ]
    found = space(TEXT).words(lambda p: p.ends()[-1])
    assert found == [
        *("optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.9"),
        *("optimizer.nesterov=false", "model.hidden_sizes=[4,2]", "data.batch_size=64"),
    ]


def test_corners_hold_every_choice_and_both_ends_of_every_range():
    corners = space(TEXT).corners()
    ends = {f"{p.key}={value}" for p in space(TEXT).parameters for value in p.ends()}
    assert {word for corner in corners for word in corner} == ends
    assert len(corners) == len({tuple(corner) for corner in corners}) < len(ends)
    for corner in corners:
        assert any(w.startswith("optimizer.momentum") for w in corner) == (
            "optimizer=sgd" in corner
        )


def test_conditions_of_conditions_are_met_together():
    text = "a: [x, y]\nb: {choices: [u, v], when: {a: y}}\nc: {low: 0, high: 1, when: {b: [v]}}"
    assert ["a=y", "b=v", "c=1.0"] in space(text).corners()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "must be a mapping of keys"),
        ("{}", "must be a mapping of keys"),
        ("seed: [1, 2]", "seed: is no choice; seed=1,2,3 on the command line"),
        ("a: 3", "a: must be a list of choices, or a range"),
        ("a: []", "a: choices must be a list"),
        ("a: [1, 1]", "a: has a choice twice: 1, 1"),
        ("a: {low: 0, hihg: 1}", "a.hihg: there is no such part; did you mean 'high'?"),
        ("a: {low: 0}", "a.high=null: must be a number"),
        ("a: {low: true, high: 2}", "a.low=true: must be a number"),
        ("a: {low: 0, high: .inf}", "a.high=inf: must be a number"),
        ("a: {low: 2, high: 2}", "a: low=2 must be less than high=2"),
        ("a: {low: 0, high: 1, log: true}", "a.low=0: must be more than 0, because of log"),
        ("a: {low: 0, high: 1, log: 1}", "a.log=1: must be true or false"),
        ("a: {low: 0.5, high: 4, int: true}", "a.low=0.5: must be a whole number"),
        ("a: {low: 1, high: 8, log: true, step: 2}", "a: has log, so omit step"),
        ("a: {low: 0, high: 1, step: 0.3}", "a.step=0.3: must lead from low to high"),
        ("a: {low: 0, high: 1, step: 0}", "a.step=0: must lead from low to high"),
        ("a: {choices: [1], low: 0}", "a: has choices, so omit low"),
        ("a: {low: 0, high: 1, when: sgd}", "a.when: must name another key"),
        ("a: {low: 0, high: 1, when: {b: 1}}\nb: [1]", "a.when: no choices of b stand above"),
        ("b: [x, yes, no]\na: {low: 0, high: 1, when: {b: xx}}", "a.when: b is never xx"),
    ],
)
def test_what_is_wrong_with_a_space_is_said_with_its_key(text, said):
    with pytest.raises(ConfigError) as refused:
        space(text)
    assert str(refused.value).startswith(said[:60]) and "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"space=.*none\.yaml: cannot be read"):
        load_space(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: {low: 0}")
    with pytest.raises(ConfigError, match=r"bad\.yaml: a\.high=null"):
        load_space(tmp_path / "bad.yaml")
