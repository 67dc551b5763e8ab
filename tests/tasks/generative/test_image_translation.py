import copy
import math
import signal

import pytest
import torch
from torch import nn

from tests.tasks.seen import images_of
from tests.training.tiny import At, Rows, differences, new_folder
from zoo.data.masks.paired_shapes import PairedShapes
from zoo.models.generative.pix2pix import Pix2Pix
from zoo.tasks.generative.image_translation import ImageTranslation
from zoo.tasks.prediction import Images
from zoo.training.interruption import Interrupted
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer


def shapes(**arguments):
    sizes = {"batch_size": 2, "train_size": 10, "val_size": 3, "test_size": 3}
    data = PairedShapes(**(sizes | arguments))
    data.setup(seed=1)
    return data


def small(image_size=64):  # there is dropout from 64 pixels on
    torch.manual_seed(0)
    return Pix2Pix(image_size, base_channels=2)


def batch_of(data, split="train"):
    return next(iter(data.batches(split, 0)))


def adams(model):
    return {
        name: torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
        for name, network in (
            ("generator", model.generator),
            ("discriminator", model.discriminator),
        )
    }


def trainer_of(model, data, *, steps, **settings):
    return Trainer(
        ImageTranslation(model),
        data,
        adams(model),
        settings=TrainerSettings(
            **{
                "epochs": None,
                "steps": steps,
                "log_every": 1,
                "device": "cpu",
                "train_metrics": False,
                **settings,
            }
        ),
        seed=3,
    )


def assert_same(model, other):
    assert differences(dict(model.state_dict()), dict(other.state_dict())) == []


class Fixed(nn.Module):
    """Whose generator shows its parameter everywhere, and whose discriminator is undecided."""

    def __init__(self, value=0.25, channels=3):
        super().__init__()
        self.generator = nn.Module()
        self.generator.value = nn.Parameter(torch.tensor(value))
        self.generator.forward = lambda x: self.generator.value.expand(len(x), channels, 4, 4)
        self.discriminator = nn.Conv2d(3 + channels, 1, 4)
        nn.init.zeros_(self.discriminator.weight)
        nn.init.zeros_(self.discriminator.bias)


def test_steps_are_bit_for_bit_the_loop_by_hand():
    model, data, steps = small(), shapes(), 7
    by_hand = copy.deepcopy(model)
    # A loop by hand has no channels_last, in which sums have another order.
    trainer_of(model, data, steps=steps, channels_last=False).fit()

    generator, discriminator = by_hand.generator, by_hand.discriminator
    optimizers, game, l1 = adams(by_hand), nn.BCEWithLogitsLoss(), nn.L1Loss()
    torch.manual_seed(3)
    pairs = [pair for epoch in range(2) for pair in data.batches("train", epoch)]
    for mask, image in pairs[:steps]:
        fake = generator(mask)
        real_logits = discriminator(torch.cat([mask, image], 1))
        fake_logits = discriminator(torch.cat([mask, fake.detach()], 1))
        loss = game(real_logits, torch.ones_like(real_logits))
        loss = (loss + game(fake_logits, torch.zeros_like(fake_logits))) * 0.5
        discriminator.zero_grad()
        loss.backward()
        optimizers["discriminator"].step()
        logits = discriminator(torch.cat([mask, fake], 1))
        loss = game(logits, torch.ones_like(logits)) + 100 * l1(fake, image)
        generator.zero_grad()
        loss.backward()
        optimizers["generator"].step()
    assert_same(model, by_hand)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_run_goes_on_bit_for_bit(accumulate, tmp_path):
    settings = {"accumulate": accumulate, "ema_decay": 0.9, "clip_norm": 1.0, "log_every": 2}

    def made():
        return trainer_of(small(), shapes(), steps=5, **settings)

    def finish(folder, resume=False):
        trainer, rows = made(), Rows()
        trainer.fit(folder=folder, callbacks=[rows], resume=resume)
        return trainer, rows.of("train")

    whole, lines = finish(new_folder(tmp_path / "whole"))
    folder = new_folder(tmp_path / "killed")
    stop = At(3, lambda t: setattr(t.signals, "stop", signal.SIGTERM))
    with pytest.raises(Interrupted):
        made().fit(folder=folder, callbacks=[stop])
    torch.manual_seed(99)
    resumed, rest = finish(folder, resume=True)
    assert_same(resumed.task.model, whole.task.model)
    assert rest and rest == lines[-len(rest) :]


def test_undecided_discriminator_costs_log_two_and_l1_weighs_a_hundredfold():
    x, y = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), -0.5)
    first, second = ImageTranslation(Fixed()).objectives((x, y))
    assert (first.network, second.network) == ("discriminator", "generator")
    assert first.loss.item() == pytest.approx(math.log(2))
    assert second.loss.item() == pytest.approx(math.log(2) + 100 * 0.75)
    assert {k: v.item() for k, v in second.terms.items()} == pytest.approx(
        {"adversarial": math.log(2), "l1": 0.75}
    )
    *_, without = ImageTranslation(Fixed(), l1_weight=0.0).objectives((x, y))
    assert without.loss.item() == pytest.approx(math.log(2))


def test_each_network_learns_from_its_own_objective_alone():
    model, batch = small(), batch_of(shapes())
    for objective in ImageTranslation(model).objectives(batch):
        model.zero_grad()
        objective.loss.backward()
        learning = {
            n for n, p in model.named_children() if any(q.grad is not None for q in p.parameters())
        }
        assert learning == {objective.network}


def test_metrics_are_means_over_images_and_select_by_l1():
    task = ImageTranslation(Fixed().eval())
    assert (task.monitor, task.mode) == ("l1", "min")
    with torch.no_grad():
        for count, value in ((3, 0.25), (1, -0.75)):
            task.evaluate((torch.zeros(count, 3, 4, 4), torch.full((count, 3, 4, 4), value)))
    assert task.compute() == pytest.approx(
        {"l1": 0.25, "discriminator_loss": math.log(2), "generator_loss": math.log(2) + 25}
    )
    assert set(task.directions().values()) == {"min"}


def test_an_evaluation_is_shown_as_input_translation_and_truth():
    task, data = ImageTranslation(small().eval()), shapes()
    assert task.show() == {}
    pairs = list(data.batches("val", 0))
    with torch.no_grad():
        for pair in pairs:
            torch.manual_seed(5)
            task.evaluate(pair)
    (image,) = images_of(task).values()
    assert image.shape == (3, 2 * 66, 6 * 66)  # three samples, two a row
    torch.manual_seed(5)
    mask, truth = (part[:1] for part in pairs[0])
    made = task.generator(pairs[0][0])[:1]
    for column, part in enumerate((mask, made, truth)):
        shown = image[:, :64, column * 66 : column * 66 + 64]
        torch.testing.assert_close(shown, (part[0] + 1) / 2)
    pixels = task.show_inputs(pairs[0])["inputs"].pixels
    torch.testing.assert_close(pixels[:, :64, 66:130], (truth[0] + 1) / 2)


def test_prediction_is_an_image_and_the_same_each_time():
    task, (mask, _) = ImageTranslation(small().eval()), batch_of(shapes())
    found = task.predict(mask)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    again = task.predict((mask,))
    assert isinstance(found, Images) and found.images.shape == (2, 3, 64, 64)
    assert found.images.min() >= 0 and found.images.max() <= 1
    assert torch.equal(found.images, again.images)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_task_without_samples_of_its_own_offers_none():
    assert not hasattr(ImageTranslation, "sample") and not hasattr(ImageTranslation, "latents")


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="l1_weight must be at least 0, not -1"):
        ImageTranslation(Fixed(), l1_weight=-1)
    with pytest.raises(TypeError, match="Linear lacks generator, discriminator"):
        ImageTranslation(nn.Linear(2, 2))
    task = ImageTranslation(Fixed(channels=1))
    with pytest.raises(ValueError, match=r"real ones' shape \(2, 3, 4, 4\), not \(2, 1, 4, 4\)"):
        next(task.objectives((torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))))
