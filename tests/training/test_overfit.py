import torch

from tests.training.tiny import (
    Samples,
    Text,
    mlp,
    trainer_of,
)
from zoo.models.recurrent.language_model import RecurrentLanguageModel
from zoo.tasks.classification import Classification
from zoo.tasks.language_modeling import LanguageModeling
from zoo.training.optimizers import make_optimizer
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer


def test_overfit_trains_and_evaluates_on_the_first_batch_alone():
    seen = set()

    class Seen(Classification):
        def _outputs(self, batch):
            seen.add(tuple(batch[0].flatten().tolist()))
            return super()._outputs(batch)

    model = mlp()
    task = Seen(model, num_classes=3)
    trainer = trainer_of(model, task=task, overfit=True, steps=60, epochs=None, optimizer={})
    results = trainer.fit()
    first = next(iter(Samples().setup().batches("train", 0)))[0]
    assert seen == {tuple(first.flatten().tolist())}
    assert "test" not in results
    assert results["val"]["accuracy"] == 1.0


def test_a_language_model_overfits_its_first_batch():
    torch.manual_seed(0)
    data = Text(batch_size=2, sequence_length=8)
    data.setup()
    model = RecurrentLanguageModel(28, embed_dim=16, hidden_size=32)
    settings = TrainerSettings(
        overfit=True, steps=150, epochs=None, evaluate_every=150, device="cpu"
    )
    task = LanguageModeling(model, sample_length=0)
    optimizer = make_optimizer(torch.optim.AdamW, model, lr=0.03)
    assert Trainer(task, data, optimizer, settings=settings).fit()["val"]["loss"] < 0.05
