"""Batches in which nothing counts: all their targets are ignored ones."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.training.tiny import Rows, Samples, mlp, trainer_of, weights
from zoo.data.sequences.special import MASK, SPECIAL
from zoo.data.text.characters import CharacterVocabulary
from zoo.tasks.classification import Classification
from zoo.tasks.masked_language_modeling import MaskedLanguageModeling
from zoo.tasks.node_classification import NodeClassification
from zoo.tasks.segmentation import Segmentation
from zoo.tasks.segmentation_losses import Loss
from zoo.tasks.sequence_classification import SequenceClassification
from zoo.tasks.translation import Translation
from zoo.training.curve import TrainingCurve
from zoo.training.distributed.strategy import OneProcess
from zoo.training.optimizers import make_optimizer
from zoo.training.step import Stepper
from zoo.training.update import Updater

VOCABULARY = CharacterVocabulary("abcdefghij", (*SPECIAL, MASK))


class Pairs(NamedTuple):
    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor


class Table(nn.Module):
    """Logits of each token by itself, whatever else is passed."""

    def __init__(self, vocab_size=15, num_classes=15):
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocab_size, 4), nn.Linear(4, num_classes)

    def forward(self, tokens, *rest):
        return self.head(self.embedding(rest[0] if rest and rest[0] is not None else tokens))


class Graph(nn.Linear):
    def forward(self, features, edge_index):
        return super().forward(features)


def tagging(**options):
    task = SequenceClassification(Table(num_classes=3), num_classes=3, **options)
    if options.get("class_weights"):
        task.class_weights = torch.tensor([0.5, 1.0, 2.0])
    tokens = torch.randint(15, (2, 5))
    full = torch.randint(3, (2, 5))
    return task, (tokens, full), (tokens, torch.full_like(full, -100))


def segmentation(loss):
    task = Segmentation(nn.Conv2d(1, 3, 1), num_classes=3, loss=loss)
    images, masks = torch.randn(2, 1, 4, 4), torch.randint(3, (2, 4, 4))
    return task, (images, masks), (images, torch.full_like(masks, 255))


def masked():
    task = MaskedLanguageModeling(Table(), vocabulary=VOCABULARY)
    tokens = torch.randint(5, 15, (2, 6))
    return task, (tokens,), (torch.full_like(tokens, VOCABULARY.mask),)


def nodes():
    batch = torch.randn(4, 6), torch.zeros(2, 0, dtype=torch.int64), torch.arange(4) % 3
    task = NodeClassification(Graph(6, 3), num_classes=3)
    return task, (*batch, torch.ones(4).bool()), (*batch, torch.zeros(4).bool())


def translation(label_smoothing):
    task = Translation(Table(), label_smoothing=label_smoothing)
    source, target = torch.randint(4, 9, (2, 4)), torch.randint(4, 9, (2, 4))
    lengths = torch.tensor([4, 4])
    full = Pairs(source, lengths, target, lengths)
    return task, full, full._replace(target=torch.zeros_like(target))


KINDS = {
    "tagging": tagging,
    "tagging, smoothed": lambda: tagging(label_smoothing=0.1),
    "tagging, weighted": lambda: tagging(class_weights="balanced", label_smoothing=0.1),
    **{f"segmentation, {loss}": (lambda x=loss: segmentation(x)) for loss in Loss.__args__},
    "masked language": masked,
    "nodes": nodes,
    "translation": lambda: translation(0.0),
    "translation, smoothed": lambda: translation(0.1),
}


def stepper_of(task, dtype=None):
    optimizer = make_optimizer(torch.optim.AdamW, task.model, lr=0.1, weight_decay=0.5)
    device = torch.device("cpu")
    updater = Updater(task.model, {"model": optimizer}, device=device, dtype=dtype, clip_norm=1.0)
    curve = TrainingCurve(["model"], device)
    return Stepper(task, updater, OneProcess(), curve), updater, curve, optimizer


@pytest.mark.parametrize("on_the_device", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_window_of_nothing_changes_nothing(kind, size, dtype, on_the_device, monkeypatch):
    torch.manual_seed(0)
    task, full, empty = KINDS[kind]()
    stepper, updater, curve, optimizer = stepper_of(task, dtype)
    if on_the_device and dtype is None:  # as on a GPU, which is not waited for
        updater._checked_at_once, updater._is_checked_later = set(), True
        monkeypatch.setattr(Tensor, "is_cpu", False)
    stepper.step([full] * size, measure=True)
    before, loss = weights(task.model), float(curve._sums["model"])
    state = [v.clone() for s in optimizer.state.values() for v in s.values()]
    assert not updater.has_been_empty()
    stepper.step([empty] * size, measure=True)
    assert updater.has_been_empty()
    assert (updater.empty == 0) == (on_the_device and dtype is None)
    assert torch.equal(weights(task.model), before)
    after = [v for s in optimizer.state.values() for v in s.values()]
    assert all(torch.equal(a, b) for a, b in zip(state, after, strict=True))
    assert float(curve._sums["model"]) == loss
    assert all(p.grad is None for p in task.model.parameters())
    stepper.step([full] * size, measure=True)
    assert weights(task.model).isfinite().all() and not torch.equal(weights(task.model), before)
    assert updater.check() is None


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_nothing_has_no_say_in_its_window(kind, first, dtype):
    found = []
    for with_empty in (False, True):
        torch.manual_seed(0)
        task, full, empty = KINDS[kind]()
        stepper, updater, *_ = stepper_of(task, dtype)
        if dtype is not None:
            updater.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        if kind == "masked language":  # which tokens it hides is otherwise drawn
            task.hide = lambda x, lengths=None: (x, x.where(x != VOCABULARY.mask, -100))
        window = [empty, full] if first else [full, empty]
        stepper.step(window if with_empty else [full], measure=False)
        found.append(weights(task.model))
    assert torch.allclose(*found, rtol=1e-3, atol=1e-3 if dtype else 1e-5)


@pytest.mark.parametrize(
    "count", [lambda targets: len(targets), lambda targets: (targets >= 0).sum()]
)
def test_fp16_takes_the_steps_of_accumulated_batches_that_it_takes_of_one(count):
    class Steep(Classification):
        def loss(self, batch):
            loss, _ = super().loss(batch)
            return loss, count(batch[1])

    taken = []
    for accumulate in (1, 3):
        model = mlp()
        task = Steep(model, num_classes=3)
        data = Samples(sizes=(192, 10, 7), batch_size=32).setup()
        stepper, updater, *_ = stepper_of(task, torch.float16)
        batches = [next(iter(data.batches("train", epoch))) for epoch in range(accumulate)]
        taken.append(stepper.step(batches, measure=True))
        assert updater.scaler.get_scale() == 2.0**16
        assert 0.1 < updater.norms["model"] < 10
    assert taken == [True, True]


class Counted(Classification):
    """The second and third batches count for nothing, and their mean is 0 / 0 as elsewhere."""

    calls = 0

    def loss(self, batch):
        loss, count = super().loss(batch)
        self.calls += 1
        count = torch.tensor(0 if self.calls in (2, 3) else count)
        return (loss * count) / count, count


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_says_once_that_nothing_counted_and_goes_on(accumulate):
    model, rows = mlp(), Rows()
    task = Counted(model, num_classes=3)
    if accumulate == 2:
        task.calls = 1
    trainer = trainer_of(
        model, Samples().setup(), task=task, accumulate=accumulate, epochs=1, ema_decay=0.9
    )
    with pytest.warns(UserWarning, match="nothing counted in a step up to") as caught:
        results = trainer.fit(callbacks=[rows])
    assert len([w for w in caught if "nothing counted" in str(w.message)]) == 1
    assert weights(model).isfinite().all()
    assert all(math.isfinite(value) for value in results["val"].values())
    losses = [row["loss"] for row in rows.of("train") if "loss" in row]
    assert 0 < len(losses) < len(rows.of("train")) and all(map(math.isfinite, losses))
