"""Parts of a loss in the training curve."""

import signal

import pytest
import torch

from tests.training.tiny import At, Rows, Samples, mlp, new_folder, read_rows, trainer_of
from zoo.tasks.classification import Classification
from zoo.training.callbacks import MetricsFile
from zoo.training.curve import TrainingCurve
from zoo.training.interruption import Interrupted

CPU = torch.device("cpu")


class Parts(Classification):
    """A classification whose loss is two parts, one of which is there in every second batch."""

    def __init__(self, model, *, names=("fit", "penalty"), every=1):
        super().__init__(model, num_classes=3)
        self.names, self.every, self.calls = names, every, 0

    def loss(self, batch):
        fit, count = super().loss(batch)
        penalty = self.model(batch[0]).square().mean()
        terms = {self.names[0]: fit.detach()}
        if self.calls % self.every == 0:
            terms[self.names[1]] = penalty.detach()
        self.calls += 1
        return fit + 0.5 * penalty, count, terms

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def trainer(every=1, names=("fit", "penalty"), **settings):
    model = mlp(dtype=torch.float64)
    return trainer_of(
        model,
        Samples(dtype=torch.float64).setup(),
        task=Parts(model, every=every, names=names),
        **settings,
    )


def test_parts_are_averaged_like_the_loss():
    rows = Rows()
    trainer(epochs=2, log_every=4).fit(callbacks=[rows])
    found = rows.of("train")
    assert len(found) == 3
    for row in found:
        assert row["loss"] == pytest.approx(row["fit"] + 0.5 * row["penalty"], rel=1e-5)
        assert list(row).index("loss") < list(row).index("fit") < list(row).index("lr")


@pytest.mark.parametrize("log_every", [1, 2])
def test_parts_of_accumulated_batches_are_those_of_one_large_batch(log_every):
    """Six batches of 4, the last of 2, as two windows of three batches or two batches of 12."""
    found = []
    for batch_size, accumulate in ((4, 3), (12, 1)):
        model = mlp(dtype=torch.float64)
        data = Samples(batch_size=batch_size, shuffle=False, dtype=torch.float64).setup()
        rows = Rows()
        settings = {"accumulate": accumulate, "log_every": log_every, "epochs": 2}
        trainer_of(model, data, task=Parts(model), **settings).fit(callbacks=[rows])
        found.append(rows.of("train"))
    for row, expected in zip(*found, strict=True):
        for name in ("loss", "fit", "penalty"):
            assert row[name] == pytest.approx(expected[name], rel=1e-6)


def test_a_part_that_comes_and_goes_is_averaged_over_the_steps_that_have_it():
    curve = TrainingCurve(["model"], CPU)
    for step in range(3):
        curve.add("model", torch.tensor(1.0), 2)
        terms = {"always": torch.tensor(float(step))}
        if step != 1:
            terms["now and then"] = torch.tensor(10.0 * step)
        curve.add_terms("model", terms, 2 if step else 6)
    row = curve.read({"model": {"": 0.1}}, {}, {})
    assert row["always"] == pytest.approx((0 * 6 + 1 * 2 + 2 * 2) / 10)
    assert row["now and then"] == pytest.approx(20 * 2 / 8)
    assert "always" not in curve.read({"model": {"": 0.1}}, {}, {})


def test_parts_have_the_name_of_their_network_before_them_as_losses_have():
    curve = TrainingCurve(["generator", "critic"], CPU)
    for network, value in (("generator", 1.0), ("critic", 2.0)):
        curve.add(network, torch.tensor(0.0), 1)
        curve.add_terms(network, {"penalty": torch.tensor(value)}, 1)
    row = curve.read({"generator": {"": 0.1}, "critic": {"": 0.1}}, {}, {})
    assert (row["generator_penalty"], row["critic_penalty"]) == (1.0, 2.0)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_resumed_run_has_the_parts_of_one_that_was_never_stopped(step, tmp_path):
    def stop(running):
        running.signals.stop = signal.SIGTERM

    options = {"every": 2, "epochs": 2, "log_every": 4, "accumulate": 2}
    whole, stopped = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    trainer(**options).fit(folder=whole, callbacks=[MetricsFile(whole.path)])
    with pytest.raises(Interrupted):
        trainer(**options).fit(
            folder=stopped, callbacks=[MetricsFile(stopped.path), At(step, stop)]
        )
    trainer(**options).fit(folder=stopped, callbacks=[MetricsFile(stopped.path)], resume=True)
    rows = read_rows(stopped.path)
    assert rows == read_rows(whole.path)
    assert all("penalty" in row for row in rows if row["split"] == "train")


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"lr": torch.tensor(1.0)}, "terms must not have the name 'lr', which the curve itself"),
        ({"kl": 1.0}, "terms must be scalar tensors, but 'kl' is 1.0"),
        ({"kl": torch.ones(2)}, r"terms must be scalar tensors, but 'kl' is tensor\(\[1., 1.\]\)"),
    ],
)
def test_wrong_parts_are_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        TrainingCurve(["model"], CPU).add_terms("model", terms, 1)


def test_a_checkpoint_without_parts_is_read():
    curve = TrainingCurve(["model"], CPU)
    state = curve.state_dict()
    del state["terms"]
    curve.load_state_dict(state)
    assert "penalty" not in curve.read({"model": {"": 0.1}}, {}, {})
