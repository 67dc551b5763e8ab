import pytest
import torch
from PIL import Image

from tests.data.images.test_mnist import lay_out, raw_files
from zoo.data.images.cifar import CIFAR10
from zoo.data.images.mnist import MNIST, FashionMNIST, read_idx
from zoo.data.images.stacked_mnist import StackedMNIST

COUNTS = {"train": 300, "val": 40, "test": 50}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with small files in the real format: 50, 10 and 20 digits."""
    monkeypatch.setattr(MNIST, "checksums", {})
    lay_out(tmp_path, raw_files())
    return str(tmp_path)


def module_of(root, seed=0, **options):
    sizes = {f"{split}_samples": COUNTS[split] for split in ("val", "test")}
    settings = {"num_samples": COUNTS["train"], **sizes, "val_digits": 10, "batch_size": 64}
    module = StackedMNIST(root=root, **(settings | options))
    module.setup(seed=seed)
    return module


def everything(module, split, epoch=0):
    batches = list(module.batches(split, epoch))
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


@pytest.mark.parametrize("scaling", ["standard", "symmetric", "unit"])
def test_each_channel_is_a_digit_of_the_split_and_the_label_spells_them(root, scaling):
    stacked = module_of(root, scaling=scaling)
    mnist = MNIST(root=root, val_size=10, scaling=scaling)
    mnist.setup()
    for split, count in COUNTS.items():
        images, labels = everything(stacked, split)
        digits, names = everything(mnist, split)
        assert images.shape == (count, 3, 28, 28) and images.dtype == torch.float32
        known = {tuple(d.flatten().tolist()): int(n) for d, n in zip(digits, names, strict=True)}
        spelled = [[known[tuple(c.flatten().tolist())] for c in image] for image in images]
        assert [100 * a + 10 * b + c for a, b, c in spelled] == labels.tolist()
        assert [stacked.class_names[n] for n in labels] == [f"{a}{b}{c}" for a, b, c in spelled]


def test_images_are_those_of_their_seed_in_whatever_order(root):
    one, two, other = module_of(root), module_of(root, seed=1), module_of(root, data_seed=1)
    assert torch.equal(everything(one, "val")[0], everything(two, "val")[0])
    assert not torch.equal(everything(one, "val")[1], everything(other, "val")[1])
    first, second = everything(one, "train"), everything(two, "train", epoch=1)
    assert not torch.equal(first[1], second[1])
    assert torch.equal(first[1].sort().values, second[1].sort().values)
    pixels = [batch[0].sum((1, 2, 3)).sort().values for batch in (first, second)]
    torch.testing.assert_close(*pixels)


def test_starting_late_gives_the_same_batches(root):
    module = module_of(root)
    whole = list(module.batches("train", 2))
    late = list(module.batches("train", 2, start=3))
    assert len(whole) == 5 and len(late) == 2
    for (images, labels), (same, numbers) in zip(whole[3:], late, strict=True):
        assert torch.equal(images, same) and torch.equal(labels, numbers)


def test_digits_are_drawn_alike_and_independently(root):
    module = module_of(root, num_samples=100_000)
    chosen = module.loaders["train"]._tensors[0]
    for column in chosen.unbind(1):
        shares = column.bincount(minlength=50) / len(column)
        assert (shares - 1 / 50).abs().max() < 5 * (0.02 * 0.98 / 100_000) ** 0.5
    correlations = torch.corrcoef(chosen.T.double())
    assert (correlations - torch.eye(3)).abs().max() < 5 / 100_000**0.5


def test_a_classifier_of_digits_gets_them_one_after_the_other_as_its_own_data_are(root):
    stacked = module_of(root, scaling="symmetric")
    framed = MNIST(root=root, val_size=10, padding=2)
    framed.setup()
    found = stacked.converter(framed)(next(stacked.batches("test", 0))[0])
    assert found.shape == (150, 1, 32, 32)
    digits = everything(framed, "test")[0]
    nearest = (found.flatten(1)[:, None] - digits.flatten(1)).abs().amax(2).min(1)
    assert nearest.values.max() < 1e-5
    _, labels = next(stacked.batches("test", 0))
    names = everything(framed, "test")[1][nearest.indices].view(-1, 3)
    assert torch.equal((names * torch.tensor([100, 10, 1])).sum(1), labels)


def test_a_classifier_of_the_triples_gets_them_whole(root):
    symmetric, standard = module_of(root, scaling="symmetric"), module_of(root)
    images, same = (everything(module, "val")[0] for module in (symmetric, standard))
    torch.testing.assert_close(symmetric.converter(standard)(images), same)


def test_a_classifier_of_other_images_is_refused():
    with pytest.raises(ValueError, match="have 32 pixels a side, and these 28"):
        StackedMNIST().converter(FashionMNIST(padding=2))
    with pytest.raises(ValueError, match="have 32 pixels a side, and these 28"):
        StackedMNIST().converter(CIFAR10())


def test_an_image_is_prepared_as_the_data_are(root, tmp_path):
    images = read_idx(tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte")[:3]
    file = Image.fromarray(images.permute(1, 2, 0).contiguous().numpy())
    expected = MNIST().normalize(images.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(StackedMNIST().preprocess(file), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"num_samples": 0}, "num_samples must be at least 1, not 0"),
        ({"val_samples": 0}, "val_samples must be at least 1, not 0"),
        ({"test_samples": -1}, "test_samples must be at least 1, not -1"),
        ({"val_digits": 0}, "val_digits must be at least 1, not 0"),
        ({"scaling": "x"}, "scaling must be 'standard', 'symmetric' or 'unit', not 'x'"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        StackedMNIST(**settings)


@pytest.mark.data
def test_real_triples_are_as_frequent_as_their_digits_say(data_dir):
    if not (data_dir / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST in {data_dir}")
    module = StackedMNIST(root=str(data_dir))
    module.setup()
    counts = {split: module.loaders[split].num_samples for split in module.splits}
    assert counts == {"train": 128_000, "val": 10_000, "test": 52_000}
    labels = module.loaders["test"]._tensors[1]
    found = labels.bincount(minlength=1000)
    digits = torch.tensor([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]) / 10_000
    expected = 52_000 * torch.einsum("a,b,c->abc", digits, digits, digits).flatten()
    assert found.min() > 0
    # Chi-squared of 999 degrees of freedom, whose standard deviation is 45.
    assert 800 < ((found - expected).square() / expected).sum() < 1200
