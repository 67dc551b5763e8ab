import math
import signal

import pytest
import torch
from torch import nn

from tests.training.tiny import (
    At,
    Poison,
    Samples,
    infinite_gradient,
    mlp,
    new_folder,
    trainer_of,
    weights,
)
from zoo.tasks.classification import Classification
from zoo.training.callback import Callback
from zoo.training.checkpoints.checkpoint import read
from zoo.training.precision import resolve_device
from zoo.training.schedules import Cosine
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer


@pytest.mark.filterwarnings("ignore:trainer.precision")
def test_bf16_autocast_computes_in_bf16_and_keeps_the_weights_in_float32():
    model, types = mlp(), []
    model.classifier.register_forward_hook(lambda m, i, o: types.append(o.dtype))
    results = trainer_of(model, precision="bf16", epochs=3, clip_norm=1.0).fit()
    assert set(types) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert math.isfinite(results["val"]["loss"])


@pytest.mark.filterwarnings("ignore:trainer.precision")
def test_bf16_losses_of_accumulated_batches_are_summed_in_float32():
    types = []

    class Noted(Classification):
        def loss(self, batch):
            loss, count = super().loss(batch)
            types.append(loss.dtype)
            return loss, count

    model = mlp()
    task = Noted(model, num_classes=3)
    trainer_of(model, task=task, precision="bf16", accumulate=4, epochs=1).fit()
    assert set(types) == {torch.float32}


def half(model, **settings):
    trainer = trainer_of(model, precision="fp16", **settings)
    trainer.updater.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, growth_interval=3)
    return trainer


@pytest.mark.filterwarnings("ignore:trainer.precision")
def test_a_step_that_fp16_skips_counts_for_neither_schedule_nor_average(tmp_path):
    model = mlp()
    trainer = half(
        model,
        task=Poison(model, at=3, bad=infinite_gradient),
        schedule=Cosine(),
        ema_decay=0.5,
        steps=6,
        epochs=None,
    )
    seen = []

    class Noted(Callback):
        def on_step_end(self, trainer):
            rate = trainer.optimizers["model"].param_groups[0]["lr"]
            average = torch.cat([m.double().flatten() for m in trainer.average._mean])
            seen.append((rate, trainer.position.updates, weights(model), average))

    trainer.fit(callbacks=[Noted()])
    cosine = Cosine()
    cosine.bind(total_steps=6, steps_per_epoch=6)
    assert [updates for _, updates, _, _ in seen] == [1, 2, 2, 3, 4, 5]
    assert [rate for rate, *_ in seen] == [0.01 * cosine(s) for s in (0, 1, 2, 2, 3, 4)]
    assert torch.equal(seen[1][2], seen[2][2])
    assert torch.equal(seen[1][3], seen[2][3])
    assert not torch.equal(seen[2][2], seen[3][2])


@pytest.mark.filterwarnings("ignore:trainer.precision")
def test_the_fp16_scale_is_saved_and_restored_and_the_run_goes_on_as_if_never_stopped(tmp_path):
    def run(path, resume=False, stop=None):
        model = mlp()
        task = Poison(model, at=4 if not resume else -1, bad=infinite_gradient)
        trainer = half(model, task=task, schedule=Cosine(), epochs=3)
        callbacks = [At(stop, lambda t: setattr(t.signals, "stop", signal.SIGTERM))] if stop else []
        try:
            trainer.fit(folder=path, callbacks=callbacks, resume=resume)
        except BaseException as error:
            assert type(error).__name__ == "Interrupted"
        return trainer

    whole, parts = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    complete = run(whole)
    run(parts, stop=7)
    state = read(parts.path / "checkpoints" / "last.pt")
    assert state["scaler"]["scale"] != 2.0**14
    resumed = run(parts, resume=True)
    found = [read(f.path / "checkpoints" / "last.pt") for f in (whole, parts)]
    assert found[0]["scaler"] == found[1]["scaler"]
    assert resumed.position.updates == complete.position.updates < 18
    assert torch.equal(*(torch.cat([v.flatten() for v in s["model"].values()]) for s in found))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device=cuda: torch sees 0 CUDA devices"):
        model = mlp()
        Trainer(
            Classification(model, num_classes=3),
            Samples().setup(),
            torch.optim.SGD(model.parameters(), lr=0.1),
            settings=TrainerSettings(device="cuda"),
        )


@pytest.mark.parametrize("name", ["mps", "mps:0", "xpu", "xpu:1"])
def test_other_accelerators_are_taken_where_torch_has_them(name, monkeypatch):
    kind = name.partition(":")[0]
    module = torch.get_device_module(kind)
    monkeypatch.setattr(module, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device={name}: torch sees 0 {kind.upper()} devices"):
        resolve_device(TrainerSettings(device=name).device)
    monkeypatch.setattr(module, "is_available", lambda: True)
    monkeypatch.setattr(module, "device_count", lambda: 2)
    assert resolve_device(TrainerSettings(device=name).device) == torch.device(name)
    assert resolve_device("auto").type in ("cuda", "cpu")


def test_convolutional_networks_become_channels_last_and_others_do_not():
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(3))
    conv(torch.zeros(1, 3, 4, 4))
    trainer_of(conv)
    assert conv[0].weight.is_contiguous(memory_format=torch.channels_last)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    trainer_of(plain, channels_last=False)
    assert plain[0].weight.is_contiguous()
