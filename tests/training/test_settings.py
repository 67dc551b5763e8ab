import pytest

from zoo.training.settings import CheckpointSettings, TrainerSettings, bytes_of


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"epochs": None}, "epochs and steps"),
        ({"epochs": 0}, "epochs"),
        ({"accumulate": 0}, "accumulate"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_value": -1.0}, "clip_value"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"log_every": 0}, "log_every"),
        ({"threads": 0}, "threads"),
        ({"memory_limit": "4 gallons"}, "memory_limit"),
        ({"memory_limit": "0GiB"}, "memory_limit"),
        ({"memory_limit": -1}, "memory_limit"),
        ({"device": "tpu"}, "device"),
        ({"device": "cpu:1"}, "device"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings, word):
    with pytest.raises(ValueError, match=f"^{word}"):
        TrainerSettings(**settings)


def test_checkpoint_settings_are_checked():
    for wrong in ({"top_k": 0}, {"every_steps": 0}, {"every_minutes": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CheckpointSettings(**wrong)


def test_a_size_of_memory_is_bytes_or_has_a_unit():
    sizes = {4096: 4096, "4096": 4096, "4GiB": 4 * 2**30, "1.5 GB": 15 * 10**8, "500kB": 500_000}
    assert {size: bytes_of(size) for size in sizes} == sizes


def test_compile_takes_the_words_of_earlier_versions():
    """And YAML, for which `off` is false."""
    said = {True: "default", False: "off", "max-autotune": "max-autotune"}
    assert {given: TrainerSettings(compile=given).compile for given in said} == said
