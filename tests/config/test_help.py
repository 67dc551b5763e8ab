"""What `--help` says of a configuration file."""

import pytest

from zoo.config.help import header
from zoo.config.paths import CONFIGS


@pytest.mark.parametrize(
    ("comment", "purpose"),
    [
        ("# One line.\n# Not this.\n", "One line."),
        (
            "# A sentence that goes on\n# in the next line.\n# Not this.\n",
            "A sentence that goes on in the next line.",
        ),
        ("# Without a stop\n# Run: python train.py\n# nor this.\n", "Without a stop"),
        ("# @package _global_\n# Mine\n# Reproduces: a paper.\n", "Mine"),
    ],
)
def test_purpose_is_the_first_sentence_however_long(comment, purpose, tmp_path):
    (tmp_path / "own.yaml").write_text(f"{comment}# Result:  good\nkey: 1\n# later\n")
    assert header(tmp_path / "own.yaml") == (purpose, "good")


@pytest.mark.parametrize(
    "file", sorted((CONFIGS / "experiment").glob("*.yaml")), ids=lambda f: f.stem
)
def test_no_experiment_is_described_by_half_a_sentence(file):
    assert header(file)[0].endswith(".")
