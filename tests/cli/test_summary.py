"""scripts/summary.py: what it counts is what others have published."""

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from zoo.app.models import create_model
from zoo.config.compose import compose

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("summary", ROOT / "scripts" / "summary.py")
summary = importlib.util.module_from_spec(spec)
spec.loader.exec_module(summary)


def words(*words, capsys):
    code = summary.main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_resnet50_is_torchvisions_and_the_papers(capsys):
    code, out, err = words("model=resnet50", capsys=capsys)
    assert (code, err) == (0, "")
    assert "25,557,032" in out
    assert "4.089 G" in out
    assert "427 / 32" in out
    assert "layer4.2.conv3" in out


PUBLISHED = [
    *("resnet50", "resnext50_32x4d", "vgg11_bn", "alexnet", "mobilenet_v2", "densenet121"),
    *("squeezenet1_1", "vit_b_16", "convnext_tiny"),
]


@pytest.mark.parity
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_operations_are_those_that_torchvision_publishes(name):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    if not (ROOT / "configs" / "model" / f"{name}.yaml").exists():
        pytest.skip(f"there is no model {name} here")
    meta = models.get_model_weights(name).DEFAULT.meta
    component, x = summary.fill(summary.compose([f"model={name}"]).model, None)
    assert x.shape == (1, 3, 224, 224)
    with torch.device("meta"):
        found = summary.summarize(component.build(), [x.to("meta")])
    assert found.parameters == meta["num_params"]
    assert round(found.macs / 1e9, 3) == pytest.approx(meta["_ops"], abs=2e-3)
    assert sum(row.parameters for row in found.rows) == found.parameters
    assert sum(row.macs for row in found.rows) == found.macs
    assert all(row.macs >= 0 for row in found.rows)


@pytest.mark.parametrize(
    ("name", "size"),
    # Araujo, Norris and Sim, 2019, "Computing receptive fields of convolutional neural networks".
    [("resnet50_v1", 483), ("resnet101_v1", 1027), ("resnet152_v1", 1507)],
)
def test_receptive_fields_are_published_ones(name, size, capsys):
    code, out, _ = words(f"model={name}", capsys=capsys)
    assert code == 0
    assert f" {size} / 32 " in out


class Small(nn.Module):
    """A layer that is called twice, a function beside it, and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(3, 4, bias=False)

    def forward(self, x):
        x = self.conv(self.conv(x)) * self.scale
        return self.head(x.mean((2, 3))) @ torch.ones(4, 5, device=x.device)


def small(model=None, size=(3, 8, 8)):
    with torch.device("meta"):
        return summary.summarize(model or Small(), [torch.empty(1, *size)])


def test_rows_are_the_modules_in_the_order_of_their_calls_with_what_is_their_own():
    found = small()
    rows = {
        row.name: (row.kind, row.output, row.field, row.parameters, row.macs) for row in found.rows
    }
    assert rows == {
        "": ("Small", "5", "n/a", 3 + 6, 4 * 5),
        "conv": ("Conv2d", "3x8x8", "5 / 1", 84, 2 * 81 * 64),
        "head": ("Linear", "4", "all", 12, 12),
    }
    assert list(rows) == ["", "conv", "head"]
    assert (found.parameters, found.trainable) == (105, 105)
    assert found.macs == sum(row.macs for row in found.rows)


def test_frozen_parameters_are_counted_apart():
    with torch.device("meta"):
        model = Small()
    model.conv.requires_grad_(False)
    assert (small(model).parameters, small(model).trainable) == (105, 21)


@pytest.mark.parametrize("inplace", [False, True])
def test_memory_is_what_autograd_keeps(inplace):
    with torch.device("meta"):
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace), nn.Flatten(), nn.Linear(4 * 64, 5)
        )
        found = summary.kept_for_backward(model, [torch.empty(1, 3, 8, 8)])
    # The input, and the ReLU's result, which the linear layer looks into.
    assert found == 4 * (3 * 64 + 4 * 64)


@pytest.mark.parametrize("name", ["vit_cifar", "convnext_tiny"])
def test_memory_is_what_autograd_keeps_on_a_cpu(name):
    size = (3, 32, 32)
    with torch.device("meta"):
        found = summary.kept_for_backward(create_model(name), [torch.empty(1, *size)])
    model, kept = create_model(name), {}
    ours = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(torch.zeros(2, *size))
    assert output.requires_grad
    assert found == sum(storage.nbytes() for storage in kept.values()) // 2


def test_memory_does_not_depend_on_the_batch_that_measures_it():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3), nn.Sigmoid())
        x = torch.empty(1, 3, 8, 8)
        found = [summary.kept_for_backward(model, [x], batch) for batch in (1, 2, 7)]
    assert len(set(found)) == 1


def test_vectors_have_no_receptive_field(capsys):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(6, 3), nn.ReLU())
    found = small(model, (6,))
    assert {row.field for row in found.rows} == {"n/a"}
    code, out, _ = words("model=mlp", "input=1x28x28", "model.num_classes=7", capsys=capsys)
    assert code == 0
    assert "input 1x28x28, num_classes=7" in out


@pytest.mark.parametrize(
    ("given", "title"),
    [
        (["model=lenet5"], "lenet5, input 1x32x32"),
        (["model=resnet20"], "resnet20, input 3x32x32, num_classes=10"),
        (["model=resnet20", "input=1x28x28"], "resnet20, input 1x28x28, num_classes=10"),
        (["model=resnet18", "model.num_classes=3"], "resnet18, input 3x224x224, num_classes=3"),
        (["experiment=lenet_digits"], "lenet5, input 1x32x32"),
    ],
)
def test_input_and_sizes_are_the_builders_own_unless_given(given, title, capsys):
    code, out, err = words(*given, capsys=capsys)
    assert (code, err) == (0, "")
    assert out.startswith(title)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["model=resnet5"], "model=resnet5: there is no model 'resnet5'; did you mean"),
        (["model=lenet5", "input=3x"], "input=3x: must be sizes such as 3x224x224"),
        (["model=lenet5", "input=0x3x3"], "input=0x3x3: must be sizes"),
        (["model=lenet5", "input=1x5x5"], "image_size must be at least 12"),
        (["model=lenet5", "model.num_clases=3"], "did you mean 'model.num_classes'?"),
        (["model=resnet18", "input=7"], "cannot be run on an input of 7 ("),
        (["model=mlp", "--depth"], "there is no such flag"),
    ],
)
def test_mistakes_are_one_line(given, said, capsys):
    code, out, err = words(*given, capsys=capsys)
    assert code == 2
    assert said in err and err.count("\n") == 1
    assert out == ""


# ------------------------------------------------------------- what a run builds, and every model


def parameters_of(recipe):
    """What the run has in its results as `parameters`, built as train.py builds it."""
    data = recipe.data.build()
    data.setup(seed=0, device="cpu")
    with torch.device("meta"):
        model = recipe.fill_auto(data.all_facts(), data.resolved()).model.build()
    return sum(p.numel() for p in model.parameters())


STDLIB = "data=stdlib_text task=language_modeling"
WORDS = "data=stdlib_words task=word_embeddings"
PAIRS = "experiment=copy_seq2seq"
GAN = "data=digits data.image_size=8 task=adversarial optimizer=gan"
KARATE = "data=karate task=node_classification"
RUNS = {  # One for each file of a model that takes no images, and three that do.
    "embedding.word2vec": f"model=cbow data.kind=cbow {WORDS}",
    "bayesian": "experiment=bnn_diabetes",
    "generative.autoencoder": "experiment=autoencoder_digits",
    "generative.conditional_gan": f"model=conditional_gan {GAN}",
    "generative.dcgan": f"model=dcgan model.base_channels=4 {GAN}",
    "generative.diffusion": "experiment=ddpm_digits",
    "generative.flow_matching": "model=velocity_mlp data=ring task=flow_matching",
    "generative.gan": "experiment=gan_digits",
    "generative.made": "experiment=made_digits",
    "generative.pacgan": "experiment=gan_ring",
    "generative.pixel_cnn": "experiment=pixel_cnn_digits",
    "generative.pix2pix": "experiment=pix2pix_shapes data.train_size=8 data.val_size=4",
    "generative.real_nvp": "experiment=real_nvp_digits",
    "generative.restricted_boltzmann_machine": "experiment=rbm_digits",
    "generative.variational_autoencoder": "experiment=vae_digits",
    "generative.vq_vae": "model=vq_vae model.hidden_channels=4 data=digits data.scaling=symmetric "
    "task=vector_quantization",
    "generative.wgan": "experiment=wgan_gp_ring",
    "graph.appnp": f"model=appnp {KARATE}",
    "graph.cheb": f"model=cheb {KARATE}",
    "graph.gat": f"model=gat {KARATE}",
    "graph.gated_graph": f"model=gated_graph {KARATE}",
    "graph.gcnii": f"model=gcnii {KARATE}",
    "graph.graph_sage": f"model=graph_sage {KARATE}",
    "graph.mlp": f"model=node_mlp {KARATE}",
    "graph.sgc": f"model=sgc {KARATE}",
    "graph.gcn": "experiment=gcn_karate",
    "graph.graph_network": "experiment=gin_wl model=graph_network data.num_samples=20",
    "graph.vgae": "experiment=link_prediction_cora data=karate_links",
    "graph.gin": "experiment=gin_wl data.num_samples=20",
    "graph.structure_free": "experiment=deep_multiset_triangles data.num_samples=20",
    "kernel_machine": "experiment=kernel_svm_digits",
    "linear": "experiment=linear_diabetes",
    "mlp": "model=mlp data=digits",
    "ordinal": "model=ordinal_regression data=iris",
    "polynomial": "experiment=linear_diabetes model=polynomial_regression",
    "recurrent.bahdanau": PAIRS,
    "recurrent.cho": f"{PAIRS} model=seq2seq_gru",
    "recurrent.language_model": "experiment=lstm_stdlib",
    "recurrent.luong": f"{PAIRS} model=seq2seq_luong",
    "recurrent.seq2seq": f"{PAIRS} model=seq2seq_lstm",
    "recurrent.sequence_heads": "experiment=parity_lstm",
    "recurrent.tcn": "experiment=tcn_adding data.num_samples=20",
    "recurrent.tcn_language_model": f"model=char_tcn {STDLIB}",
    "recurrent.vector_to_sequence": "experiment=sine_synthesis",
    "segmentation.unet": "experiment=unet_shapes data.train_size=8 data.val_size=4",
    "tabular.entity_embeddings": "model=entity_embeddings data=penguins data.categories=codes",
    "transformer.bert": "experiment=bert_shakespeare data=stdlib_text data.mask_token=true",
    "transformer.gpt": f"model=gpt_char {STDLIB}",
    "transformer.llama": f"model=llama_char {STDLIB}",
    "transformer.transformer": "experiment=reverse_transformer",
    "vision.cnn": "experiment=cnn_digits",
    "vision.lenet": "experiment=lenet_digits",
    "vision.shallow_convnet": "experiment=shallow_convnet_synthetic",
}
ALONE = {
    "segmentation.fcn": "fcn32s",
    "text.text_cnn": "text_cnn",
    "vision.airbench": "airbench94",
    "vision.fractalnet": "fractalnet20",
    "vision.googlenet": "googlenet_cifar",
    "vision.preact_resnet": "preact_resnet110",
    "vision.resnet_cifar": "resnet20",
    "vision.wide_resnet": "wide_resnet16_4",
    "vision.zfnet": "zfnet",
}


def file_of(target):
    return target.removeprefix("zoo.models.").rpartition(".")[0]


def test_there_is_a_summary_for_every_file_of_models():
    files = {f.stem: yaml.safe_load(f.read_text()) for f in ROOT.glob("configs/model/*.yaml")}
    found = {name: file_of(content["_target_"]) for name, content in files.items()}
    assert {found[name] for name in ALONE.values()} == set(ALONE)
    assert {*RUNS, *ALONE, *(found[name] for name in PUBLISHED)} == set(found.values())


@pytest.mark.parametrize("file", sorted(RUNS))
def test_run_is_summarised_as_it_is_built(file, capsys):
    recipe = compose(RUNS[file].split())
    assert file_of(recipe.config["model"]["_target_"]) == file
    code, out, err = words(*RUNS[file].split(), capsys=capsys)
    assert (code, err) == (0, "")
    assert f"parameters           {parameters_of(recipe):,} (" in out
    macs = [line.split("│")[-2].strip() for line in out.splitlines() if line.startswith("│")]
    assert macs and not any(count.startswith("-") for count in macs)


@pytest.mark.parametrize("name", sorted(ALONE.values()))
def test_model_alone_is_summarised_with_its_builders_sizes(name, capsys):
    code, out, err = words(f"model={name}", capsys=capsys)
    assert (code, err) == (0, "")
    with torch.device("meta"):
        count = sum(p.numel() for p in create_model(name).parameters())
    assert f"parameters           {count:,} (" in out


@pytest.mark.parametrize(
    ("experiment", "count"),
    [("mlp_mnist", 669_706), ("resnet20_cifar10", 269_722), ("resnet_mnist", 269_434)],
)
def test_data_that_say_their_sizes_are_not_read(experiment, count, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)
    code, out, err = words(f"experiment={experiment}", capsys=capsys)
    assert (code, err) == (0, "")
    assert f"parameters           {count:,} (" in out
    assert list(tmp_path.iterdir()) == []


def test_data_that_must_be_read_and_are_missing_are_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = words("data=text", "model=gpt_char", "data.file=mine.txt", capsys=capsys)
    assert code in (1, 2) and "mine.txt" in err and err.count("\n") == 1 and out == ""


def test_networks_beside_one_another_are_all_run(capsys):
    _, out, _ = words("experiment=gan_digits", capsys=capsys)
    rows = {line.split()[1]: line.split() for line in out.splitlines() if line.startswith("│")}
    assert rows["discriminator.output"][-2:] == ["128", "│"]


def test_help_is_for_people(capsys):
    code, out, _ = words("--help", capsys=capsys)
    assert code == 0
    assert "python scripts/summary.py model=resnet50" in out
