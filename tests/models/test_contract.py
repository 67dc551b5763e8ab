import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.models.bayesian import BayesianCNN, BayesianMLP
from zoo.models.embedding.word2vec import cbow, skip_gram
from zoo.models.generative.autoencoder import (
    Autoencoder,
    ConvolutionalAutoencoder,
    TiedAutoencoder,
)
from zoo.models.generative.conditional_gan import ConditionalGAN
from zoo.models.generative.dcgan import DCGAN
from zoo.models.generative.diffusion import ddpm_digits
from zoo.models.generative.flow_matching import VelocityMLP
from zoo.models.generative.gan import GAN
from zoo.models.generative.made import MADE
from zoo.models.generative.pacgan import PacGAN
from zoo.models.generative.pix2pix import Pix2Pix
from zoo.models.generative.pixel_cnn import PixelCNN
from zoo.models.generative.real_nvp import PointRealNVP, RealNVP
from zoo.models.generative.restricted_boltzmann_machine import RestrictedBoltzmannMachine
from zoo.models.generative.variational_autoencoder import VariationalAutoencoder
from zoo.models.generative.vq_vae import VQVAE
from zoo.models.generative.wgan import WGAN, PointWGAN
from zoo.models.graph.appnp import APPNPNet
from zoo.models.graph.cheb import ChebNet
from zoo.models.graph.gat import GAT, GATv2
from zoo.models.graph.gated_graph import GatedGraphNetwork
from zoo.models.graph.gcn import GCN
from zoo.models.graph.gcnii import GCNII
from zoo.models.graph.gin import GIN
from zoo.models.graph.graph_network import GraphNetwork
from zoo.models.graph.graph_sage import GraphSAGE
from zoo.models.graph.mlp import NodeMLP
from zoo.models.graph.sgc import SGC
from zoo.models.graph.structure_free import DeepMultiset, MolecularFingerprint
from zoo.models.graph.vgae import GAE, VGAE
from zoo.models.linear import LinearRegression, SoftmaxRegression
from zoo.models.mlp import MLP, mlp_800, mlp_800_800
from zoo.models.recurrent.bahdanau import seq2seq_attention
from zoo.models.recurrent.cho import seq2seq_gru
from zoo.models.recurrent.language_model import RecurrentLanguageModel
from zoo.models.recurrent.luong import seq2seq_luong
from zoo.models.recurrent.seq2seq import seq2seq_lstm
from zoo.models.recurrent.sequence_heads import rnn_classifier, rnn_regressor, rnn_tagger
from zoo.models.recurrent.tcn import tcn_classifier, tcn_regressor
from zoo.models.recurrent.tcn_language_model import char_tcn
from zoo.models.recurrent.vector_to_sequence import vector_to_sequence
from zoo.models.segmentation.unet import unet, unet_padded
from zoo.models.tabular.entity_embeddings import EntityEmbeddings
from zoo.models.text.text_cnn import text_cnn
from zoo.models.transformer.bert import bert_classifier, char_bert
from zoo.models.transformer.gpt import gpt_char
from zoo.models.transformer.llama import llama_char
from zoo.models.transformer.transformer import transformer_multi30k
from zoo.models.vision.airbench import airbench94
from zoo.models.vision.cnn import CNN
from zoo.models.vision.convnext import ConvNeXt
from zoo.models.vision.densenet import densenet121, densenet_cifar
from zoo.models.vision.fractalnet import FractalNet
from zoo.models.vision.googlenet import googlenet, googlenet_bn, googlenet_cifar
from zoo.models.vision.lenet import lenet5, lenet5_1998
from zoo.models.vision.mobilenet_v2 import mobilenet_v2_cifar
from zoo.models.vision.preact_resnet import PreActBlock, PreActBottleneck, PreActResNet
from zoo.models.vision.resnet import Bottleneck, ResNet, resnet18
from zoo.models.vision.resnet_cifar import CifarResNet, PlainNet
from zoo.models.vision.shallow_convnet import shallow_convnet
from zoo.models.vision.squeezenet import squeezenet1_0, squeezenet1_1
from zoo.models.vision.vgg import vgg11_cifar
from zoo.models.vision.vision_transformer import vit_cifar
from zoo.models.vision.wide_resnet import WideResNet
from zoo.training.optimizers import MuonWithAdamW, make_optimizer

RING = torch.stack([torch.arange(4), (torch.arange(4) + 1) % 4])
TWO_GRAPHS = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), torch.tensor([0, 0, 1, 1])
RING = torch.cat([RING, RING.flip(0)], dim=1)
TWO_GRAPHS = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), torch.tensor([0, 0, 1, 1])


class Case(NamedTuple):
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[torch.Tensor, ...]]
    run: Callable[..., torch.Tensor] = lambda model, *inputs: model(*inputs)
    num_classes: int | None = None  # where an untrained model should be undecided
    is_batched: bool = True  # whether the first dimension is one of independent samples
    warm: Callable[[nn.Module], nn.Module] = lambda model: model  # where it starts without gradient


def images(channels: int, size: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    return lambda: (torch.rand(4, channels, size, size),)


def with_head(model: nn.Module) -> nn.Module:
    """A Vision Transformer starts with a zero classifier, through which no gradient passes yet."""
    nn.init.normal_(model.heads.head.weight, std=0.02)
    return model


def with_output(model: nn.Module) -> nn.Module:
    """word2vec's output matrix starts at zero, through which no gradient passes yet."""
    nn.init.normal_(model.output.weight)
    return model


def mean_path(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """All that a variational autoencoder makes of an image without drawing."""
    mean, log_variance = model.encode(x)
    return torch.cat([mean, log_variance, model.decode(mean).flatten(1)], dim=1)


def coded(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The image made again, and the codes, which learn by themselves."""
    found = model(x)
    return torch.cat([found.output.flatten(1), found.quantized.flatten(1)], dim=1)


def scattered(model: nn.Module) -> nn.Module:
    """The U-Net of diffusion starts with zeros, through which no gradient passes yet."""
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def every_row(model: nn.Module, words: torch.Tensor) -> torch.Tensor:
    return model(words, torch.arange(model.output.num_embeddings).expand(len(words), -1))


def with_auxiliary(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """All that a network with auxiliary heads returns, side by side."""
    output = model(x)
    return torch.cat(output, dim=1) if isinstance(output, tuple) else output


def judged(model: nn.Module, latents: torch.Tensor) -> torch.Tensor:
    """What a GAN's second network makes of what its first makes of noise."""
    return model.discriminator(model.generator(latents))


def judged_pair(model: nn.Module, given: torch.Tensor) -> torch.Tensor:
    """Likewise of the image that the first makes of an image, beside that image."""
    return model.discriminator(torch.cat([given, model.generator(given)], dim=1))


def judged_by_class(model: nn.Module, latents: torch.Tensor) -> torch.Tensor:
    """Likewise, with a class that follows from the noise, so that every sample keeps its own."""
    classes = F.one_hot(latents[:, :4].argmax(1), 4).to(latents)
    return model.discriminator(model.generator(latents, classes), classes)


def translation(build: Callable[..., nn.Module], **arguments: object) -> Case:
    """An encoder-decoder of 9 source and 7 target tokens, which translates token by token here."""
    return Case(
        lambda: build(9, 7, embed_dim=8, **arguments),
        lambda: (torch.randint(9, (4, 6)),),
        lambda model, source: model(source, source % 7),
        num_classes=7,
    )


CASES = {
    "linear_regression": Case(lambda: LinearRegression(6, 2), lambda: (torch.randn(4, 6),)),
    "softmax_regression": Case(lambda: SoftmaxRegression(192, 5), images(3, 8), num_classes=5),
    "mlp": Case(lambda: MLP(192, 5, hidden_sizes=(16, 8)), images(3, 8), num_classes=5),
    "mlp_tanh": Case(
        lambda: MLP(192, 5, activation="tanh", dropout=0.2), images(3, 8), num_classes=5
    ),
    "mlp_maxout": Case(
        lambda: MLP(192, 5, activation="maxout", batch_norm="before"), images(3, 8), num_classes=5
    ),
    "cnn": Case(lambda: CNN(5, 3, image_size=8), images(3, 8), num_classes=5),
    "cnn_prelu": Case(
        lambda: CNN(5, 3, image_size=8, activation="prelu", batch_norm="after", dropout=0.2),
        images(3, 8),
        num_classes=5,
    ),
    "entity_embeddings": Case(
        lambda: EntityEmbeddings((5, 3), 5, num_numbers=2, hidden_sizes=(16, 8)),
        lambda: (torch.cat([torch.randn(4, 2), torch.randint(1, 3, (4, 2))], 1),),
        num_classes=5,
    ),
    "mlp_800": Case(lambda: mlp_800(64), images(1, 8), num_classes=10),
    "mlp_800_800": Case(lambda: mlp_800_800(64), images(1, 8), num_classes=10),
    "bayesian_mlp": Case(
        lambda: BayesianMLP(192, 5, hidden_sizes=(16, 8)), images(3, 8), num_classes=5
    ),
    "bayesian_cnn": Case(
        lambda: BayesianCNN(7, in_channels=3, image_size=16), images(3, 16), num_classes=7
    ),
    "airbench94": Case(lambda: airbench94(5), images(3, 32), num_classes=5),
    "lenet5": Case(lambda: lenet5(7, in_channels=3), images(3, 32), num_classes=7),
    "lenet5_28": Case(lambda: lenet5(image_size=28), images(1, 28), num_classes=10),
    "lenet5_1998": Case(lenet5_1998, images(1, 32), num_classes=10),
    "lenet5_1998_28": Case(
        lambda: lenet5_1998(5, in_channels=3, image_size=28), images(3, 28), num_classes=5
    ),
    "densenet_cifar": Case(
        lambda: densenet_cifar(5, depth=40, dropout=0.1), images(3, 16), num_classes=5
    ),
    "densenet121": Case(lambda: densenet121(5, in_channels=1), images(1, 64), num_classes=5),
    "mobilenet_v2_cifar": Case(lambda: mobilenet_v2_cifar(5), images(3, 16), num_classes=5),
    "squeezenet1_0": Case(lambda: squeezenet1_0(5), images(3, 48), num_classes=5),
    "squeezenet1_1": Case(lambda: squeezenet1_1(7, in_channels=1), images(1, 32), num_classes=7),
    "vit_cifar": Case(
        lambda: vit_cifar(5, image_size=16, dropout=0.1, attention_dropout=0.1),
        images(3, 16),
        num_classes=5,
        warm=with_head,
    ),
    "vgg11_cifar": Case(lambda: vgg11_cifar(5), images(3, 32), num_classes=5),
    "googlenet": Case(lambda: googlenet(5), images(3, 80), with_auxiliary, num_classes=5),
    "googlenet_bn": Case(
        lambda: googlenet_bn(7, in_channels=1), images(1, 32), with_auxiliary, num_classes=7
    ),
    "googlenet_cifar": Case(lambda: googlenet_cifar(5), images(3, 16), num_classes=5),
    "resnet18": Case(lambda: resnet18(5), images(3, 32), num_classes=5),
    "resnet_bottleneck": Case(
        lambda: ResNet(Bottleneck, (1, 1, 1, 1), num_classes=5), images(3, 32), num_classes=5
    ),
    "resnet_cifar": Case(lambda: CifarResNet(5, depth=8), images(3, 8), num_classes=5),
    "plainnet": Case(lambda: PlainNet(5, depth=8), images(3, 8), num_classes=5),
    "preact_resnet": Case(
        lambda: PreActResNet(PreActBlock, 2, num_classes=5), images(3, 8), num_classes=5
    ),
    "preact_resnet_bottleneck": Case(
        lambda: PreActResNet(PreActBottleneck, 2, num_classes=5), images(3, 8), num_classes=5
    ),
    "wide_resnet": Case(
        lambda: WideResNet(5, depth=10, widen_factor=2, dropout=0.3), images(3, 8), num_classes=5
    ),
    "convnext": Case(
        lambda: ConvNeXt((8, 16, 24, 32), (1, 1, 2, 1), num_classes=5, stochastic_depth=0.1),
        images(3, 32),
        num_classes=5,
    ),
    "fractalnet": Case(
        lambda: FractalNet((8, 16), num_columns=3, num_classes=5, drop_path=False),
        images(3, 8),
        num_classes=5,
    ),
    "unet": Case(
        lambda: unet(3, in_channels=2, base_channels=4, num_levels=2, dropout=0.0), images(2, 48)
    ),
    "unet_padded": Case(
        lambda: unet_padded(3, in_channels=2, base_channels=4, num_levels=2), images(2, 18)
    ),
    "shallow_convnet": Case(
        lambda: shallow_convnet(3, in_channels=5, input_length=120),
        lambda: (torch.randn(4, 5, 120),),
    ),
    "shallow_convnet_norm": Case(
        lambda: shallow_convnet(
            3, in_channels=5, input_length=120, elu=False, batch_norm=True, dropout=0.5
        ),
        lambda: (torch.randn(4, 5, 120),),
        num_classes=3,
    ),
    "char_lstm": Case(
        RecurrentLanguageModel,
        lambda: (torch.randint(65, (4, 6)),),
        lambda model, tokens: model(tokens)[0],
        num_classes=65,
    ),
    "char_lstm_tied": Case(
        lambda: RecurrentLanguageModel(
            9, tie_weights=True, num_layers=2, dropout=0.2, backend="written"
        ),
        lambda: (torch.randint(9, (4, 6)),),
        lambda model, tokens: model(tokens)[0],
        num_classes=9,
    ),
    "seq2seq_lstm": translation(seq2seq_lstm, hidden_size=16),
    "seq2seq_gru": translation(seq2seq_gru, hidden_size=16),
    "seq2seq_gru_maxout": translation(seq2seq_gru, hidden_size=16, maxout_size=8, kind="gru_paper"),
    "seq2seq_attention": translation(seq2seq_attention, hidden_size=16),
    "seq2seq_attention_maxout": translation(
        seq2seq_attention, hidden_size=16, maxout_size=8, kind="gru_paper"
    ),
    "seq2seq_luong": translation(seq2seq_luong, hidden_size=16),
    "seq2seq_luong_concat": translation(
        seq2seq_luong, hidden_size=16, score="concat", input_feeding=False
    ),
    "char_gru": Case(
        lambda: RecurrentLanguageModel(kind="gru"),
        lambda: (torch.randint(65, (4, 6)),),
        lambda model, tokens: model(tokens)[0],
        num_classes=65,
    ),
    "char_tcn": Case(lambda: char_tcn(9), lambda: (torch.randint(9, (4, 6)),), num_classes=9),
    "rnn_classifier": Case(
        lambda: rnn_classifier(3, in_features=2, bidirectional=True),
        lambda: (torch.randn(4, 7, 2),),
        num_classes=3,
    ),
    "rnn_tagger": Case(
        lambda: rnn_tagger(3, in_features=2), lambda: (torch.randn(4, 7, 2),), num_classes=3
    ),
    "rnn_regressor": Case(
        lambda: rnn_regressor(2, memory_length=7), lambda: (torch.randn(4, 7, 2),)
    ),
    "vector_to_sequence": Case(
        lambda: vector_to_sequence(3, sequence_length=5, feedback=True),
        lambda: (torch.randn(4, 3),),
    ),
    "tcn_classifier": Case(
        lambda: tcn_classifier(3, in_features=2), lambda: (torch.randn(4, 9, 2),), num_classes=3
    ),
    "tcn_regressor": Case(lambda: tcn_regressor(2), lambda: (torch.randn(4, 9, 2),)),
    "gpt_char": Case(gpt_char, lambda: (torch.randint(65, (4, 64)),), num_classes=65),
    "gpt_char_bias": Case(
        lambda: gpt_char(
            9,
            sequence_length=6,
            bias=True,
            gelu="tanh",
            dropout=0.2,
        ),
        lambda: (torch.randint(9, (4, 6)),),
        num_classes=9,
    ),
    "llama_char": Case(llama_char, lambda: (torch.randint(65, (4, 6)),), num_classes=65),
    "llama_char_grouped": Case(
        lambda: llama_char(9, num_kv_heads=2, tie_weights=True),
        lambda: (torch.randint(9, (4, 6)),),
        num_classes=9,
    ),
    "char_bert": Case(char_bert, lambda: (torch.randint(70, (4, 64)),), num_classes=70),
    "bert_classifier": Case(
        lambda: bert_classifier(9, 5, sequence_length=12),
        lambda: (torch.randint(9, (4, 12)),),
        num_classes=5,
    ),
    "text_cnn": Case(
        lambda: text_cnn(9, 5, embed_dim=8),
        lambda: (torch.randint(9, (4, 12)),),
        num_classes=5,
    ),
    "transformer": translation(transformer_multi30k, num_heads=2, mlp_dim=16),
    "transformer_pre": translation(transformer_multi30k, num_heads=2, mlp_dim=16, norm_first=True),
    "skip_gram": Case(
        lambda: skip_gram(9, 8), lambda: (torch.randint(9, (4,)),), every_row, warm=with_output
    ),
    "cbow_tree": Case(
        lambda: cbow(9, 8, out_features=8),
        lambda: (torch.tensor([[3, 1, -1], [2, 5, 8], [0, -1, -1], [3, 3, 7]]),),
        every_row,
        warm=with_output,
    ),
    "gcn": Case(
        lambda: GCN(6, 3), lambda: (torch.rand(4, 6), RING), num_classes=3, is_batched=False
    ),
    "gcn_sparse": Case(
        lambda: GCN(6, 3, num_layers=3),
        lambda: (torch.rand(4, 6).to_sparse_csr(), RING),
        num_classes=3,
        is_batched=False,
    ),
    "cheb": Case(
        lambda: ChebNet(6, 3), lambda: (torch.rand(4, 6), RING), num_classes=3, is_batched=False
    ),
    "sgc": Case(
        lambda: SGC(6, 3), lambda: (torch.rand(4, 6), RING), num_classes=3, is_batched=False
    ),
    "appnp": Case(
        lambda: APPNPNet(6, 3), lambda: (torch.rand(4, 6), RING), num_classes=3, is_batched=False
    ),
    "gated_graph": Case(
        lambda: GatedGraphNetwork(6, 3),
        lambda: (torch.rand(4, 6), RING),
        num_classes=3,
        is_batched=False,
    ),
    "gcnii": Case(
        lambda: GCNII(6, 3, num_layers=4),
        lambda: (torch.rand(4, 6), RING),
        num_classes=3,
        is_batched=False,
    ),
    "node_mlp": Case(
        lambda: NodeMLP(6, 3), lambda: (torch.rand(4, 6), RING), num_classes=3, is_batched=False
    ),
    "gae": Case(lambda: GAE(6, 3), lambda: (torch.rand(4, 6), RING), is_batched=False),
    "gat": Case(
        lambda: GAT(6, 3),
        lambda: (torch.rand(4, 6), RING),
        num_classes=3,
        is_batched=False,
    ),
    "gatv2": Case(
        lambda: GATv2(6, 3),
        lambda: (torch.rand(4, 6), RING),
        num_classes=3,
        is_batched=False,
    ),
    "sage": Case(
        lambda: GraphSAGE(6, 3),
        lambda: (torch.rand(4, 6), RING),
        num_classes=3,
        is_batched=False,
    ),
    "sage_lstm": Case(
        lambda: GraphSAGE(6, 3, aggr="lstm", project=True),
        lambda: (torch.rand(4, 6), RING),
        num_classes=3,
        is_batched=False,
    ),
    "gin": Case(
        lambda: GIN(6, 3, dropout=0.0),
        lambda: (torch.rand(4, 6), *TWO_GRAPHS),
        lambda model, *inputs: model(*inputs, 2),
        num_classes=3,
        is_batched=False,
    ),
    "graph_network": Case(
        lambda: GraphNetwork(6, 3),
        lambda: (torch.rand(4, 6), *TWO_GRAPHS),
        lambda model, *inputs: model(*inputs, 2),
        num_classes=3,
        is_batched=False,
    ),
    "molecular_fingerprint": Case(
        lambda: MolecularFingerprint(6, 3),
        lambda: (torch.rand(4, 6), *TWO_GRAPHS),
        lambda model, *inputs: model(*inputs, 2),
        num_classes=3,
        is_batched=False,
    ),
    "deep_multiset": Case(
        lambda: DeepMultiset(6, 3),
        lambda: (torch.rand(4, 6), *TWO_GRAPHS),
        lambda model, *inputs: model(*inputs, 2),
        num_classes=3,
        is_batched=False,
    ),
    "vgae": Case(
        lambda: VGAE(6, 3),
        lambda: (torch.rand(4, 6), RING),
        lambda model, *inputs: torch.cat(model(*inputs), 1),
        is_batched=False,
    ),
    "ddpm_digits": Case(
        lambda: ddpm_digits(4, channels=(8, 16), attention_sizes=(4,), num_groups=4, dropout=0.1),
        images(1, 4),
        lambda model, x: model(x, torch.full((len(x),), 7)),
        warm=scattered,
    ),
    "velocity_mlp": Case(
        lambda: VelocityMLP(2, hidden_sizes=(8,)),
        lambda: (torch.randn(4, 2),),
        lambda model, x: model(x, torch.full((len(x),), 0.5)),
    ),
    "gan": Case(
        lambda: GAN(8, 3, hidden_sizes=(32,), maxout_sizes=(16,)),
        lambda: (torch.randn(4, 100),),
        judged,
    ),
    "dcgan": Case(
        lambda: DCGAN(8, 3, latent_dim=6, base_channels=4), lambda: (torch.randn(4, 6),), judged
    ),
    "dcgan_spectral": Case(
        lambda: DCGAN(8, 1, latent_dim=6, base_channels=4, norm="spectral"),
        lambda: (torch.randn(4, 6),),
        judged,
    ),
    "wgan": Case(lambda: WGAN(latent_dim=6, base_channels=2), lambda: (torch.randn(4, 6),), judged),
    "point_wgan": Case(
        lambda: PointWGAN(hidden_sizes=(8, 8)), lambda: (torch.randn(4, 2),), judged
    ),
    "pacgan": Case(
        lambda: PacGAN(hidden_sizes=(8, 8), maxout_sizes=(6,), pieces=2),
        lambda: (torch.randn(4, 2),),
        judged,
    ),
    "conditional_gan": Case(
        lambda: ConditionalGAN(8, num_classes=4), lambda: (torch.randn(4, 100),), judged_by_class
    ),
    "pix2pix": Case(
        lambda: Pix2Pix(32, 1, out_channels=2, base_channels=2), images(1, 32), judged_pair
    ),
    "autoencoder": Case(lambda: Autoencoder(8, 3, hidden_sizes=(16,), latent_dim=4), images(3, 8)),
    "autoencoder_tied": Case(
        lambda: TiedAutoencoder(8, 3, latent_dim=4, code="sigmoid"), images(3, 8)
    ),
    "autoencoder_convolutional": Case(
        lambda: ConvolutionalAutoencoder(8, 3, hidden_channels=(4, 6)), images(3, 8)
    ),
    "restricted_boltzmann_machine": Case(
        lambda: RestrictedBoltzmannMachine(8, hidden_size=6), images(1, 8)
    ),
    "made": Case(lambda: MADE(4, hidden_sizes=(50, 40), ordering="random"), images(1, 4)),
    "pixel_cnn": Case(
        lambda: PixelCNN(8, 3, hidden_channels=6, num_blocks=2, head_channels=6), images(3, 8)
    ),
    "real_nvp": Case(
        lambda: RealNVP(8, hidden_channels=4, num_blocks=1),
        images(1, 8),
        lambda model, x: model.log_prob(x),
    ),
    "real_nvp_points": Case(
        lambda: PointRealNVP(2), lambda: (torch.randn(4, 2),), lambda model, x: model.log_prob(x)
    ),
    "vq_vae": Case(
        lambda: VQVAE(3, hidden_channels=8, num_codes=6, code_dim=4, update="loss"),
        images(3, 8),
        coded,
    ),
    "variational_autoencoder": Case(
        lambda: VariationalAutoencoder(8, 3, latent_dim=4, hidden_sizes=(32,)),
        images(3, 8),
        mean_path,
    ),
    "variational_autoencoder_conv": Case(
        lambda: VariationalAutoencoder(8, 3, latent_dim=4, hidden_sizes=(32,), channels=(4, 8)),
        images(3, 8),
        mean_path,
    ),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def each(condition: Callable[[Case], bool] = lambda case: True):
    chosen = {name: case for name, case in CASES.items() if condition(case)}
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen.keys())


def double(tensor):
    return tensor.double() if tensor.is_floating_point() else tensor


@each()
def test_every_parameter_gets_a_finite_gradient_from_one_backward(case):
    model = case.warm(case.build())
    output = case.run(model, *case.inputs())
    assert output.isfinite().all()
    (output - 1).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@each(lambda case: case.is_batched)
def test_a_sample_alone_equals_the_sample_in_its_batch(case):
    model, (x,) = case.warm(case.build()).eval(), case.inputs()
    torch.testing.assert_close(case.run(model, x)[2:3], case.run(model, x[2:3]))


@each()
def test_model_runs_in_float64_close_to_float32(case):
    model, inputs = case.warm(case.build()).eval(), case.inputs()
    single = case.run(model, *inputs)
    output = case.run(model.double(), *map(double, inputs))
    assert output.dtype == torch.float64
    torch.testing.assert_close(output.float(), single, atol=1e-3, rtol=1e-3)


@each()
def test_state_dict_carries_all_that_the_output_depends_on(case):
    model, inputs = case.warm(case.build()).eval(), case.inputs()
    other = case.warm(case.build()).eval()
    other.load_state_dict(copy.deepcopy(model.state_dict()), strict=True)
    assert torch.equal(case.run(other, *inputs), case.run(model, *inputs))


@each()
def test_deep_copy_of_a_used_model_is_equal_and_independent(case):
    model, inputs = case.warm(case.build()).eval(), case.inputs()
    before = case.run(model, *inputs).detach()
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(case.run(copied, *inputs), before)


@each()
def test_building_twice_from_one_seed_gives_one_model(case):
    models = []
    for _ in range(2):
        torch.manual_seed(1)
        models.append(case.warm(case.build()).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@each(lambda case: case.num_classes is not None)
def test_untrained_classifier_is_about_undecided(case):
    model = case.warm(case.build()).eval()
    logits = case.run(model, *case.inputs()).flatten(0, -2)
    targets = torch.randint(case.num_classes, (len(logits),))
    loss = F.cross_entropy(logits, targets).item()
    assert loss == pytest.approx(math.log(case.num_classes), abs=0.7)


def names_where(model: nn.Module, optimizer: torch.optim.Optimizer, **options: object) -> set[str]:
    """Parameters of the groups that have these options."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups = [g for g in optimizer.param_groups if options.items() <= g.items()]
    return {names[id(p)] for group in groups for p in group["params"]}


@each()
def test_weight_decay_reaches_weights_alone(case):
    model = case.build()
    optimizer = make_optimizer(torch.optim.AdamW, model, weight_decay=0.125)
    for name in names_where(model, optimizer, weight_decay=0.125):
        own = name.rpartition(".")[2]
        # As torch calls what makes a weight, and PyG those that attention multiplies with.
        is_other = own in ("original", "original0", "original1", "att", "att_src", "att_dst")
        assert "weight" in own or is_other, name


@each(lambda case: case.num_classes is not None)
def test_muon_gets_no_matrix_that_scores_the_classes(case):
    model = case.build()
    try:
        muon = make_optimizer(MuonWithAdamW, model).parts[0]
    except ValueError:  # a network without a hidden matrix
        return
    shapes = {name: p.shape for name, p in model.named_parameters()}
    hidden = names_where(model, muon)
    assert not [name for name in hidden if shapes[name][0] == case.num_classes]


@each()
def test_what_a_network_says_to_optimizers_it_has(case):
    model = case.build()
    for module in model.modules():
        if hasattr(module, "no_weight_decay"):
            assert module.no_weight_decay() <= {name for name, _ in module.named_parameters()}
        if hasattr(module, "output_layers"):
            assert set(module.output_layers) <= {name for name, _ in module.named_modules()}


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer, also those that are not stored, under all of its names."""
    parameters = model.named_parameters(remove_duplicate=False)
    return dict(parameters) | dict(model.named_buffers(remove_duplicate=False))


def ties(model: nn.Module) -> list[list[str]]:
    names: dict[int, list[str]] = {}
    for name, tensor in tensors(model).items():
        names.setdefault(id(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


@each()
def test_init_weights_gives_a_seeds_weights_wherever_the_network_was_built(case):
    torch.manual_seed(1)
    built = case.build()
    with torch.device("meta"):
        empty = case.build()
    assert all(tensor.is_meta for tensor in tensors(empty).values())
    empty.to_empty(device="cpu")
    for tensor in tensors(empty).values():
        tensor.detach().fill_(7)  # What is not given a value differs.
    moved = copy.deepcopy(built)
    with torch.no_grad():
        for tensor in moved.parameters():
            tensor.add_(1)
    for model in (empty, moved):
        torch.manual_seed(1)
        model.init_weights()
        found = tensors(model)
        assert list(found) == list(tensors(built))
        for name, tensor in tensors(built).items():
            assert torch.equal(found[name], tensor), name
        assert ties(model) == ties(built)
