from torch import nn

from zoo.models.generative.denoising_unet import DenoisingUNet, DownLevel, ResidualBlock, UpLevel
from zoo.models.mlp import MLP
from zoo.models.transformer.gpt import GPT, Block
from zoo.models.transformer.transformer import DecoderLayer, EncoderLayer, transformer_multi30k
from zoo.models.vision.resnet_cifar import resnet20
from zoo.models.vision.vision_transformer import EncoderBlock, VisionTransformer
from zoo.training.blocks import are_alike, lists_of_blocks


def kinds(network: nn.Module) -> list[tuple[type, int]]:
    return [(type(blocks[0]), len(blocks)) for blocks in lists_of_blocks(network)]


def gpt(num_layers: int = 3) -> GPT:
    return GPT(7, sequence_length=8, embed_dim=8, num_layers=num_layers, num_heads=2, dropout=0.3)


def vit(num_layers: int = 2) -> VisionTransformer:
    sizes = {"num_layers": num_layers, "embed_dim": 8, "num_heads": 2, "mlp_dim": 16}
    return VisionTransformer(3, in_channels=1, image_size=8, patch_size=4, dropout=0.3, **sizes)


def unet() -> DenoisingUNet:
    sizes = {"channels": (4, 8, 8), "num_groups": 2, "attention_sizes": (4,)}
    return DenoisingUNet(8, 1, dropout=0.3, **sizes)


def test_the_layers_of_transformers_are_blocks():
    translator = transformer_multi30k(11, 13, embed_dim=8, num_heads=2, mlp_dim=8)
    assert kinds(translator) == [(EncoderLayer, 3), (DecoderLayer, 3)]
    assert kinds(gpt()) == [(Block, 3)]
    assert kinds(vit()) == [(EncoderBlock, 2)]
    assert all(map(are_alike, [*lists_of_blocks(translator), *lists_of_blocks(gpt())]))


def test_the_levels_of_a_u_net_are_blocks_and_not_what_is_in_them():
    expected = [(DownLevel, 3), (ResidualBlock, 2), (UpLevel, 3)]
    assert sorted(kinds(unet()), key=str) == sorted(expected, key=str)
    levels = lists_of_blocks(unet())[0]
    assert not are_alike(levels)


def test_single_layers_are_no_blocks():
    assert kinds(MLP(4, 2, hidden_sizes=(4, 4))) == []
    assert kinds(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []
    assert kinds(gpt(num_layers=1)) == []


def test_the_stages_of_a_residual_network_are_lists():
    stages = lists_of_blocks(resnet20())
    assert [len(blocks) for blocks in stages] == [3, 3, 3]
    assert [are_alike(blocks) for blocks in stages] == [True, False, False]
