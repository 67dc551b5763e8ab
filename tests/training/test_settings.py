import pytest

from zoo.training.settings import CheckpointSettings, TrainerSettings


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
