"""GANs through the trainer: against loops written by hand, and what each step updates."""

import copy
import signal
from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.training.tiny import At, Rows, differences, new_folder, weights
from zoo.data.images.digits import Digits
from zoo.data.points.mixtures import GaussianRing
from zoo.models.generative.dcgan import DCGAN
from zoo.models.generative.pacgan import PacGAN
from zoo.models.generative.wgan import PointWGAN
from zoo.tasks.generative.adversarial import Adversarial
from zoo.training.interruption import Interrupted
from zoo.training.schedules import Cosine, Step
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer

GP = {"loss": "wasserstein", "gradient_penalty": 0.1}


def ring(**arguments):
    data = GaussianRing(**{"batch_size": 16, "num_samples": 96, "eval_samples": 30, **arguments})
    data.setup(seed=1)
    return data


def point_wgan():
    torch.manual_seed(0)
    return PointWGAN(hidden_sizes=(12, 12))


def adams(model, **options):
    options = {"lr": 1e-3, "betas": (0.5, 0.9), **options}
    return {
        name: torch.optim.Adam(network.parameters(), **options)
        for name, network in (
            ("generator", model.generator),
            ("discriminator", model.discriminator),
        )
    }


def trainer_of(model, data, *, schedule=None, optimizers=None, steps=12, settings=None, **options):
    task = Adversarial(model, num_components=2, **options)
    return Trainer(
        task,
        data,
        optimizers or adams(model),
        schedule=schedule,
        settings=TrainerSettings(
            **{
                "epochs": None,
                "steps": steps,
                "log_every": 1,
                "device": "cpu",
                "train_metrics": False,
                **(settings or {}),
            }
        ),
        seed=3,
    )


def real_batches(data, steps):
    per_epoch = data.num_batches("train")
    for epoch in range(-(-steps // per_epoch)):
        for number, (real, _) in enumerate(data.batches("train", epoch)):
            if epoch * per_epoch + number < steps:
                yield real


def assert_same(model, other):
    assert differences(dict(model.state_dict()), dict(other.state_dict())) == []


def test_dcgan_step_is_bit_for_bit_the_loop_of_pytorchs_example():
    torch.manual_seed(0)
    model = DCGAN(8, 1, latent_dim=5, base_channels=4)
    by_hand, steps = copy.deepcopy(model), 5
    data = Digits(batch_size=16, image_size=8, scaling="symmetric")
    data.setup(seed=1)
    # The example has no channels_last, in which sums have another order.
    trainer_of(model, data, steps=steps, reuse_fake=True, settings={"channels_last": False}).fit()

    generator, discriminator = by_hand.generator, by_hand.discriminator
    optimizers, criterion = adams(by_hand), nn.BCEWithLogitsLoss()
    torch.manual_seed(3)
    for real in real_batches(data, steps):
        discriminator.zero_grad()
        fake = generator(torch.randn(len(real), 5))
        real_loss = criterion(discriminator(real), torch.ones(len(real)))
        fake_loss = criterion(discriminator(fake.detach()), torch.zeros(len(real)))
        (real_loss + fake_loss).backward()
        optimizers["discriminator"].step()
        generator.zero_grad()
        criterion(discriminator(fake), torch.ones(len(real))).backward()
        optimizers["generator"].step()
    assert_same(model, by_hand)


def test_wgan_gp_with_five_critic_steps_is_bit_for_bit_the_loop_by_hand():
    model, data, steps = point_wgan(), ring(), 12
    by_hand = copy.deepcopy(model)
    trainer_of(model, data, steps=steps, generator_every=5, **GP).fit()

    generator, critic = by_hand.generator, by_hand.discriminator
    optimizers, batches = adams(by_hand), real_batches(data, steps)
    torch.manual_seed(3)
    for step, real in enumerate(batches, start=1):  # each critic step a new batch
        fake = generator(torch.randn(16, 2)).detach()
        real_score, fake_score = critic(real), critic(fake)
        loss = fake_score.mean() - real_score.mean()
        alpha = torch.rand(16, 1)
        between = (alpha * real + (1 - alpha) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        loss = loss + 0.1 * (slope.norm(dim=1) - 1).square().mean()
        critic.zero_grad()
        loss.backward()
        optimizers["discriminator"].step()
        if step % 5 == 0:
            generator.zero_grad()
            (-critic(generator(torch.randn(16, 2))).mean()).backward()
            optimizers["generator"].step()
    assert_same(model, by_hand)


def test_packed_step_is_bit_for_bit_the_loop_by_hand():
    torch.manual_seed(0)
    model = PacGAN(packing=2, hidden_sizes=(8,), maxout_sizes=(6,), pieces=2)
    by_hand, data, steps = copy.deepcopy(model), ring(), 4
    trainer_of(model, data, steps=steps).fit()

    optimizers, criterion = adams(by_hand), nn.BCEWithLogitsLoss()
    torch.manual_seed(3)
    for real in real_batches(data, steps):
        fake = by_hand.generator(torch.randn(16, 2)).detach()
        loss = criterion(by_hand.discriminator(real.view(8, 4)), torch.ones(8))
        loss = loss + criterion(by_hand.discriminator(fake.view(8, 4)), torch.zeros(8))
        by_hand.discriminator.zero_grad()
        loss.backward()
        optimizers["discriminator"].step()
        fake = by_hand.generator(torch.randn(16, 2))
        by_hand.generator.zero_grad()
        criterion(by_hand.discriminator(fake.view(8, 4)), torch.ones(8)).backward()
        optimizers["generator"].step()
    assert_same(model, by_hand)


def test_generator_changes_at_every_nth_step_alone_and_the_critic_at_each():
    model, found = point_wgan(), []
    trainer = trainer_of(model, ring(), steps=7, generator_every=3, **GP)

    def note(trainer):
        found.append((weights(model.generator), weights(model.discriminator)))

    note(trainer)
    trainer.fit(callbacks=[At(step, note) for step in range(1, 8)])
    changed = [
        tuple(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        for before, after in pairwise(found)
    ]
    assert changed == [(step % 3 == 0, True) for step in range(1, 8)]
    assert trainer.task.critic_updates == 7


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_killed_between_critic_steps_goes_on_bit_for_bit(accumulate, tmp_path):
    settings = {"accumulate": accumulate, "ema_decay": 0.9, "clip_norm": 1.0, "log_every": 2}

    def made():
        return trainer_of(
            point_wgan(), ring(), generator_every=5, settings=settings, schedule=Cosine(), **GP
        )

    def finish(folder, resume=False):
        trainer, rows = made(), Rows()
        trainer.fit(folder=folder, callbacks=[rows], resume=resume)
        return trainer, rows.of("train")

    whole, lines = finish(new_folder(tmp_path / "whole"))
    for step in (3, 5, 7):
        folder = new_folder(tmp_path / str(step))
        stop = At(step, lambda t: setattr(t.signals, "stop", signal.SIGTERM))
        with pytest.raises(Interrupted):
            made().fit(folder=folder, callbacks=[stop])
        torch.manual_seed(99)
        resumed, rest = finish(folder, resume=True)
        assert_same(resumed.task.model, whole.task.model)
        assert rest == lines[-len(rest) :], f"killed after step {step}"


def test_schedule_of_each_network_counts_its_own_updates():
    model, steps, every = point_wgan(), 18, 3
    optimizers = adams(model, lr=1.0)
    rates = {name: [] for name in optimizers}
    for name, optimizer in optimizers.items():
        optimizer.register_step_pre_hook(
            lambda o, *_, name=name: rates[name].append(o.param_groups[0]["lr"])
        )
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
    trainer_of(
        model,
        ring(),
        steps=steps,
        schedule=Cosine(warmup_steps=2),
        optimizers=optimizers,
        generator_every=every,
        **GP,
    ).fit()
    for name, count in (("discriminator", steps), ("generator", steps // every)):
        own = Cosine(warmup_steps=2)
        own.bind(total_steps=count, steps_per_epoch=1)
        assert rates[name] == [1e-3 * own(update) for update in range(count)]


def test_epochs_of_a_schedule_are_the_same_for_networks_with_fewer_updates():
    trainer = trainer_of(
        point_wgan(),
        ring(),  # six batches an epoch
        steps=24,
        schedule=Step(milestones=[2], gamma=0.5),
        generator_every=4,
        **GP,
    )
    factors = [trainer.rates(step) for step in range(24)]
    assert [f["discriminator"] for f in factors] == [1.0] * 12 + [0.5] * 12
    assert [f["generator"] for f in factors] == [1.0] * 12 + [0.5] * 12


def test_gradient_norm_of_a_network_stands_in_the_lines_of_its_own_steps():
    trainer, rows = trainer_of(point_wgan(), ring(), steps=6, generator_every=3, **GP), Rows()
    trainer.fit(callbacks=[rows])
    lines = rows.of("train")
    assert ["generator_grad_norm" in row for row in lines] == [False, False, True] * 2
    assert ["generator_loss" in row for row in lines] == [False, False, True] * 2
    assert all("discriminator_penalty" in row for row in lines)


def test_weights_are_clipped_after_each_critic_update_and_the_generators_are_not():
    model, clip, largest = point_wgan(), 0.05, []
    trainer = trainer_of(
        model, ring(), steps=4, loss="wasserstein", weight_clip=clip, generator_every=2
    )
    before = copy.deepcopy(model)
    trainer.dry_run()
    assert_same(model, before)
    trainer.fit(
        callbacks=[
            At(step, lambda t: largest.append(weights(model.discriminator).abs().max().item()))
            for step in (1, 2, 3, 4)
        ]
    )
    assert largest == [pytest.approx(clip)] * 4
    assert weights(model.generator).abs().max() > clip


def test_a_rehearsal_tries_the_generator_though_its_turn_is_far_off():
    model = point_wgan()
    trainer = trainer_of(model, ring(), generator_every=100, **GP)
    seen = []
    original = trainer.task.generator_loss
    trainer.task.generator_loss = lambda *samples: seen.append(1) or original(*samples)
    assert trainer.dry_run().differentiates
    assert seen and trainer.task.critic_updates == 0


def test_gradient_penalty_under_compilation_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"compile=default: the loss of Adversarial holds a deriv"):
        trainer_of(point_wgan(), ring(), settings={"compile": True}, **GP)


def test_batch_that_packs_do_not_divide_is_refused_before_the_run():
    trainer = trainer_of(PacGAN(packing=3, hidden_sizes=(4,), maxout_sizes=(4,)), ring())
    with pytest.raises(ValueError, match=r"packing=3 needs batches of a multiple of 3 .* not 16"):
        trainer.dry_run()
