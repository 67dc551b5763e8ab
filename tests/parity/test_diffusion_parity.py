import pytest
import torch

from zoo.inference.denoising import ancestral, ddim, evenly_spaced
from zoo.layers.noise_schedule import NoiseSchedule, cosine_betas, linear_betas
from zoo.models.generative.denoising_unet import DenoisingUNet
from zoo.models.generative.diffusion import ddpm_cifar10

diffusers = pytest.importorskip(
    "diffusers", reason="parity with diffusers' U-Net and schedulers needs diffusers"
)
pytestmark = pytest.mark.parity

# google/ddpm-cifar10-32, so far as it is not the default
PUBLISHED = {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6}
PUBLISHED |= {"attention_head_dim": None, "act_fn": "silu"}


def theirs(channels, attention, *, image_size=32, in_channels=3, layers=2, groups=32, **options):
    """Diffusers' network with attention at the levels named."""
    kinds = ["AttnDownBlock2D" if i in attention else "DownBlock2D" for i in range(len(channels))]
    return diffusers.UNet2DModel(
        sample_size=image_size,
        in_channels=in_channels,
        out_channels=in_channels,
        layers_per_block=layers,
        block_out_channels=channels,
        down_block_types=kinds,
        up_block_types=[k.replace("Down", "Up") for k in reversed(kinds)],
        norm_num_groups=groups,
        **PUBLISHED | options,
    )


def scramble(model):
    """Weights that nobody would start from, none of them zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def run(model, x, times, **labels):
    """What a network returns, and the gradients of a weighted sum of it."""
    x = x.clone().requires_grad_()
    output = model(x, times, **labels)
    output = getattr(output, "sample", output)
    weights = torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output)
    (output * weights).sum().backward()
    return output, x.grad, {name: p.grad for name, p in model.named_parameters()}


def assert_same(ours, other, x, times, labels=None):
    ours.load_state_dict(other.state_dict(), strict=True)
    found = run(ours, x, times, **({} if labels is None else {"labels": labels}))
    wanted = run(other, x, times, **({} if labels is None else {"class_labels": labels}))
    torch.testing.assert_close(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1])
    assert found[2].keys() == wanted[2].keys()
    for name, gradient in wanted[2].items():
        torch.testing.assert_close(found[2][name], gradient, msg=name)


def test_published_network_has_the_names_and_shapes_of_diffusers():
    with torch.device("meta"):
        networks = ddpm_cifar10(), theirs((128, 256, 256, 256), {1})
    found, wanted = ({n: p.shape for n, p in m.state_dict().items()} for m in networks)
    assert found == wanted
    assert sum(shape.numel() for shape in found.values()) == 35_746_307


@pytest.mark.slow
def test_published_network_loads_strictly_with_equal_outputs_and_gradients():
    other = scramble(theirs((128, 256, 256, 256), {1})).double()
    x = torch.randn(1, 3, 32, 32, dtype=torch.double)
    assert_same(ddpm_cifar10(dropout=0.0).double(), other, x, torch.tensor([999]))


@pytest.mark.parametrize(
    ("sizes", "attention"),
    [
        ({"image_size": 8, "channels": (8, 16), "layers": 1}, {1}),
        ({"image_size": 12, "channels": (8, 16, 16), "layers": 3, "in_channels": 1}, {0, 2}),
        ({"image_size": 4, "channels": (16,), "layers": 2}, set()),
    ],
)
def test_other_sizes_do_too(sizes, attention):
    other = scramble(theirs(attention=attention, groups=4, **sizes)).double()
    size, channels = sizes["image_size"], sizes["channels"]
    ours = DenoisingUNet(
        size,
        sizes.get("in_channels", 3),
        channels=channels,
        layers_per_level=sizes["layers"],
        attention_sizes=tuple(size >> level for level in attention),
        num_groups=4,
    )
    x = torch.randn(3, *ours.sample_shape, dtype=torch.double)
    assert_same(ours.double(), other, x, torch.tensor([3, 0, 512]))


def test_classes_are_diffusers_with_one_more_for_none():
    other = scramble(theirs((8, 16), {1}, image_size=8, groups=4, num_class_embeds=6)).double()
    ours = DenoisingUNet(8, channels=(8, 16), attention_sizes=(4,), num_groups=4, num_classes=5)
    x = torch.randn(3, 3, 8, 8, dtype=torch.double)
    times, labels = torch.tensor([3, 0, 512]), torch.tensor([0, 4, 5])
    assert_same(ours.double(), other, x, times, labels)
    nobody = torch.full((3,), 5)
    torch.testing.assert_close(ours(x, times), other(x, times, class_labels=nobody).sample)


KINDS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
SCHEDULES = {"linear": (linear_betas, "linear"), "cosine": (cosine_betas, "squaredcos_cap_v2")}


def schedulers(kind, name, *, schedule="linear", **options):
    """Ours, and a scheduler of diffusers for the same thousand steps."""
    betas, theirs_name = SCHEDULES[schedule]
    options = {"prediction_type": KINDS[name], "clip_sample": False} | options
    ours, other = (
        NoiseSchedule(betas(1000)),
        getattr(diffusers, kind)(1000, beta_schedule=theirs_name, **options),
    )
    # Theirs are computed in single precision, of which differences would be amplified.
    torch.testing.assert_close(ours.alphas_bar[1:].float(), other.alphas_cumprod, rtol=2e-5, atol=0)
    other.alphas_cumprod = ours.alphas_bar[1:]
    return ours, other


def batch():
    torch.manual_seed(0)
    return torch.randn(2, 4, 1, 5, 5, dtype=torch.double)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedule_noisy_samples_and_velocities_are_the_schedulers(schedule):
    ours, other = schedulers("DDPMScheduler", "v", schedule=schedule)
    x0, noise = batch()
    t = torch.tensor([1, 2, 500, 1000])
    found = ours.diffuse(x0, t, noise), ours.target("v", x0, noise, t)
    torch.testing.assert_close(found[0], other.add_noise(x0, noise, t - 1))
    torch.testing.assert_close(found[1], other.get_velocity(x0, noise, t - 1))


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ancestral_steps_are_the_schedulers(schedule, name, variance):
    kind = {"posterior": "fixed_small", "beta": "fixed_large"}[variance]
    ours, other = schedulers("DDPMScheduler", name, schedule=schedule, variance_type=kind)
    output, x = batch()
    for t in (990, 500, 2, 1):
        wanted = other.step(output, t - 1, x, generator=torch.Generator().manual_seed(t))
        (found,) = ancestral(
            lambda x, t: ours.data(name, output, x, t),
            x,
            ours,
            steps=[t, t - 1],
            variance=variance,
            generator=torch.Generator().manual_seed(t),
        )
        torch.testing.assert_close(found, wanted.prev_sample)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("clip", [False, True])
def test_ddim_steps_are_the_schedulers(name, eta, clip):
    ours, other = schedulers(
        "DDIMScheduler", name, clip_sample=clip, timestep_spacing="trailing", set_alpha_to_one=True
    )
    other.set_timesteps(20)
    steps = evenly_spaced(1000, 20)
    assert [t - 1 for t in steps[:-1]] == other.timesteps.tolist()
    output, x = batch()

    def guess(x, t):
        data = ours.data(name, output, x, t)
        return data.clamp(-1, 1) if clip else data

    states = ddim(guess, x, ours, steps=steps, eta=eta, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    for t, found in zip(other.timesteps.tolist(), states, strict=True):
        options = {"use_clipped_model_output": True, "generator": generator}
        x = other.step(output, t, x, eta=eta, **options).prev_sample
        torch.testing.assert_close(found, x)
