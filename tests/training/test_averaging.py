import torch

from tests.training.tiny import (
    mlp,
    new_folder,
    trainer_of,
    weights,
)
from zoo.tasks.classification import Classification
from zoo.training.callback import Callback
from zoo.training.checkpoint import read


def test_the_average_is_the_closed_form():
    model = mlp()
    start, history = weights(model), []
    trainer = trainer_of(model, ema_decay=0.7, steps=9, epochs=None)

    class Weights(Callback):
        def on_step_end(self, trainer):
            history.append(weights(trainer.task.model))

    trainer.fit(callbacks=[Weights()])
    expected = 0.7**9 * start
    for step, value in enumerate(history, start=1):
        expected += 0.3 * 0.7 ** (9 - step) * value
    assert torch.allclose(weights(model), expected, rtol=1e-5, atol=1e-6)


def test_the_average_is_evaluated_and_saved_and_training_goes_on_without_it(tmp_path):
    plain, averaged = mlp(), mlp()
    trainer_of(plain, epochs=3).fit()
    during = []

    class Evaluated(Classification):
        def evaluate(self, batch):
            during.append(weights(self.model))
            super().evaluate(batch)

    trainer = trainer_of(averaged, task=Evaluated(averaged, num_classes=3), ema_decay=0.7, epochs=3)
    folder = new_folder(tmp_path)
    trainer.fit(folder=folder)
    last = read(folder.path / "checkpoints" / "last.pt")
    live = torch.cat([last["model"][n].double().flatten() for n, _ in averaged.named_parameters()])
    mean = torch.cat(
        [last["average"][n].double().flatten() for n, _ in averaged.named_parameters()]
    )
    assert torch.equal(live, weights(plain))  # what was trained is what it were without
    assert not torch.equal(live, mean)
    assert torch.equal(during[-4], mean)  # the last validation: three batches; one of the test
    best = read(folder.path / "checkpoints" / "best.pt")
    kept = torch.cat(
        [best["average"][n].double().flatten() for n, _ in averaged.named_parameters()]
    )
    assert torch.equal(weights(averaged), kept)  # the model ends as what was selected
