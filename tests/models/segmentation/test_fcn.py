import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.models.segmentation.fcn import (
    FCN,
    BilinearUpsampling,
    LearnedUpsampling,
    bilinear_kernel,
    fcn8s,
    fcn16s,
    fcn32s,
)
from zoo.training.pretrained import load_pretrained

BUILDERS = [fcn32s, fcn16s, fcn8s]


def count(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(build, **arguments):
    with torch.device("meta"):
        return build(**arguments).eval()


def features_of_one_channel(model):
    """Replaces the layers by some of one channel that hand on the mean of what they see, so that
    each place of each map holds its own place in the image."""
    first = nn.Conv2d(1, 1, 3, padding=100)
    features = [nn.AvgPool2d(2, ceil_mode=True) if isinstance(m, nn.MaxPool2d) else nn.Identity()
                for m in model.features]  # fmt: skip
    model.features = nn.Sequential(first, *features[1:])
    model.classifier[0], model.classifier[3] = nn.Conv2d(1, 1, 7), nn.Identity()
    for layer in (first, model.classifier[0]):
        layer.weight.zero_()[..., layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
        layer.bias.zero_()
    for name in ("score", "score_pool4", "score_pool3"):
        if hasattr(model, name):
            scoring = nn.Conv2d(1, 1, 1)
            scoring.weight.fill_(1)
            scoring.bias.zero_()
            setattr(model, name, scoring)
    return model.eval()


@pytest.mark.parametrize(
    ("build", "expected"),
    [(fcn32s, 134_346_581), (fcn16s, 134_364_410), (fcn8s, 134_376_863)],
)
def test_parameters_are_those_of_vgg16_the_scores_and_the_learned_magnifications(build, expected):
    model = on_meta(build)
    vgg16 = 138_357_544 - (4096 * 1000 + 1000)
    scores = sum((channels + 1) * 21 for channels in (4096, 512, 256)[: BUILDERS.index(build) + 1])
    assert count(model) == expected == vgg16 + scores + 21 * 21 * 16 * BUILDERS.index(build)


def test_maps_have_the_sizes_of_the_published_network():
    model, sizes = on_meta(fcn8s), {}
    for name, part in model.named_modules():
        part.register_forward_hook(lambda _, __, y, n=name: sizes.update({n: tuple(y.shape[1:])}))
    model(torch.zeros(1, 3, 500, 500, device="meta"))
    names = [f"features.{i}" for i in (0, 4, 9, 16, 23, 30)]
    assert [sizes[name] for name in names] == [
        (64, 698, 698),
        (64, 349, 349),
        (128, 175, 175),
        (256, 88, 88),
        (512, 44, 44),
        (512, 22, 22),
    ]
    names = ["classifier", "score", "upscore2", "upscore_pool4", "upscore", ""]
    assert [sizes[name] for name in names] == [
        (4096, 16, 16),
        (21, 16, 16),
        (21, 34, 34),
        (21, 70, 70),
        (21, 568, 568),
        (21, 500, 500),
    ]


@pytest.mark.parametrize("build", BUILDERS)
def test_every_size_comes_out_as_it_went_in(build):
    model = on_meta(build, num_classes=5, in_channels=1)
    for size in (*range(1, 70), 224, 500):
        x = torch.zeros(1, 1, size, 2 * size + 1, device="meta")
        assert model(x).shape == (1, 5, size, 2 * size + 1)


@pytest.mark.parametrize("build", BUILDERS)
@torch.no_grad()
def test_all_maps_are_cut_so_that_they_lie_over_the_image(build):
    model = features_of_one_channel(build(1, in_channels=1, classifier_channels=1))
    rows = torch.arange(400.0)[:, None].expand(400, 350)
    columns = torch.arange(350.0).expand(400, 350)
    places = model.double()(torch.stack((rows, columns)).unsqueeze(1).double())
    num_scores = BUILDERS.index(build) + 1
    for place, expected in zip(places[:, 0], (rows, columns), strict=True):
        # Away from the border, where the padding does not take part.
        inner = (place / num_scores)[150:-150, 150:-150]
        torch.testing.assert_close(inner, expected[150:-150, 150:-150].double())


@pytest.mark.parametrize("stride", [2, 8, 16, 32])
def test_magnification_is_bilinear_interpolation(stride):
    x = torch.randn(2, 3, 5, 6)
    full = BilinearUpsampling(stride)(x)
    assert full.shape == (2, 3, 6 * stride, 7 * stride)
    cut = full[:, :, stride // 2 : -stride // 2, stride // 2 : -stride // 2]
    expected = F.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
    inner = slice(stride, -stride)  # Beyond the outermost centres torch repeats, this adds zeros.
    torch.testing.assert_close(cut[:, :, inner, inner], expected[:, :, inner, inner])
    if stride == 2:
        torch.testing.assert_close(LearnedUpsampling(3)(x), full)


def test_magnification_by_two_has_the_known_kernel():
    side = torch.tensor([0.25, 0.75, 0.75, 0.25])
    torch.testing.assert_close(bilinear_kernel(2), side[:, None] * side)


def test_last_magnification_is_fixed_and_the_others_are_learned():
    names = [name for name, _ in on_meta(fcn8s).named_parameters()]
    assert [name for name in names if name.startswith("up")] == [
        "upscore2.weight",
        "upscore_pool4.weight",
    ]
    assert not [key for key in on_meta(fcn8s).state_dict() if key.startswith("upscore.")]


def test_scores_begin_at_zero_and_still_learn():
    torch.manual_seed(0)
    model = fcn8s(3, classifier_channels=4)
    model.features.requires_grad_(False)
    x = torch.randn(1, 3, 8, 8)
    output = model(x)
    assert not output.any()
    F.cross_entropy(output, torch.ones(1, 8, 8, dtype=torch.int64)).backward()
    for name in ("score", "score_pool4", "score_pool3"):
        layer = getattr(model, name)
        assert layer.weight.grad.any() and layer.bias.grad.any()


@pytest.mark.parity
def test_vgg16_of_torchvision_loads_and_gives_its_maps(tmp_path):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    torch.manual_seed(0)
    theirs = on_meta(models.vgg16)
    theirs.features.to_empty(device="cpu")
    for parameter in theirs.features.parameters():
        nn.init.normal_(parameter, std=0.03)
    # A narrow classifier, which is folded just as the wide one is.
    theirs.classifier[0], theirs.classifier[3] = nn.Linear(512 * 7 * 7, 8), nn.Linear(8, 8)
    theirs.classifier[6] = nn.Linear(8, 1000)
    state = theirs.state_dict()
    ours = fcn16s(5, classifier_channels=8).eval()
    torch.save(state, tmp_path / "vgg16.pth")
    loaded = load_pretrained(ours, tmp_path / "vgg16.pth", num_classes=5)
    assert set(loaded.unused) == {"classifier.6.weight", "classifier.6.bias"}
    assert {key.split(".")[0] for key in loaded.fresh} == {"score", "score_pool4", "upscore2"}
    with torch.no_grad():
        x = torch.randn(1, 3, 48, 48)
        layers = list(ours.features)
        layers[0] = nn.Conv2d(3, 64, 3, padding=1)
        layers[0].load_state_dict(ours.features[0].state_dict())
        # 48 = 3 * 16: the last pooling rounds 3 / 2 up here and down there.
        torch.testing.assert_close(nn.Sequential(*layers[:30])(x), theirs.features[:30](x))
        maps = torch.rand(2, 512, 7, 7)
        expected = theirs.classifier[:6](maps.flatten(1))
        torch.testing.assert_close(ours.classifier(maps).flatten(1), expected)


@pytest.mark.parity
@pytest.mark.parametrize("build", BUILDERS)
def test_full_vgg16_of_torchvision_fits_in_every_shape(build):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    ours, theirs = on_meta(build).state_dict(), on_meta(models.vgg16).state_dict()
    kept = [key for key in theirs if not key.startswith("classifier.6.")]
    assert kept == [key for key in ours if key.startswith(("features.", "classifier."))]
    for key in kept:
        assert ours[key].numel() == theirs[key].numel() and len(ours[key]) == len(theirs[key])


@torch.no_grad()
def test_finer_networks_take_the_weights_of_the_coarser_and_begin_as_they_were(tmp_path):
    torch.manual_seed(0)
    coarse = fcn32s(3, in_channels=1, classifier_channels=4).eval()
    nn.init.normal_(coarse.score.weight)
    x = torch.randn(1, 1, 8, 8)
    expected = coarse(x)
    for build in (fcn16s, fcn8s):
        fine = build(3, in_channels=1, classifier_channels=4).eval()
        torch.save(coarse.state_dict(), tmp_path / "coarse.pth")
        loaded = load_pretrained(fine, tmp_path / "coarse.pth", num_classes=3)
        assert not loaded.unused and len(loaded.fresh) == 3
        # The new scores are zero, and magnifying twice is about as good as once.
        assert (fine(x) - expected).norm() < 0.25 * expected.norm()
        coarse = fine


def test_weights_of_vgg_are_drawn_from_hes_gaussian():
    torch.manual_seed(0)
    model = FCN(2, classifier_channels=8)
    for i, fan_out in ((2, 64), (12, 256), (28, 512)):
        std = model.features[i].weight.std().item()
        assert std == pytest.approx((2 / (9 * fan_out)) ** 0.5, rel=0.02)
        assert not model.features[i].bias.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"classifier_channels": 0}, "classifier_channels must be at least 1, not 0"),
        ({"stride": 4}, "stride must be 32, 16 or 8, not 4"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        FCN(**arguments)


def test_image_of_the_wrong_shape_is_refused():
    model = on_meta(fcn32s)
    with pytest.raises(ValueError, match=r"x must be \(batch, 3, height, width\), not \(1, 1, 9"):
        model(torch.zeros(1, 1, 9, 9, device="meta"))
    with pytest.raises(ValueError, match="at least 1x1 pixels"):
        model(torch.zeros(1, 3, 0, 9, device="meta"))
