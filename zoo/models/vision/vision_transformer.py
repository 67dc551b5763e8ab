r"""Vision Transformer (Dosovitskiy et al., 2021).

"An image is worth 16x16 words: Transformers for image recognition at scale",
https://arxiv.org/abs/2010.11929. The sizes Ti and S are those of Touvron et al. 2021, "Training
data-efficient image transformers & distillation through attention",
https://arxiv.org/abs/2012.12877 (without its distillation token).

An image cut into patches is read as a sentence of words by the encoder of a Transformer: every
patch looks at every other from the first layer on. Hardly anything about images is built in, so
it must be learned from many of them, or from strong augmentation.

Differences from the paper: the classifier is the single linear layer of fine-tuning, not the
hidden layer and tanh of pre-training. ``dropout`` is 0 unless asked for; where the paper trains on
ImageNet or ImageNet-21k it is 0.1. Weights start as in the authors' JAX code (see the classes).

`vit_cifar` is ours, for 32x32 images and training from scratch: patches of 4x4 pixels and an MLP
of twice the width, like the ViT-Lite of Hassani et al. 2021, "Escaping the big data paradigm with
compact transformers", https://arxiv.org/abs/2104.05704, narrower and deeper than theirs.

| builder | patch | layers | embed_dim | MLP | heads | tokens | parameters |
|---|---|---|---|---|---|---|---|
| `vit_ti_16` | 16 | 12 | 192 | 768 | 3 | 197 | 5,717,416 |
| `vit_s_16` | 16 | 12 | 384 | 1536 | 6 | 197 | 22,050,664 |
| `vit_b_16` | 16 | 12 | 768 | 3072 | 12 | 197 | 86,567,656 |
| `vit_b_32` | 32 | 12 | 768 | 3072 | 12 | 50 | 88,224,232 |
| `vit_l_16` | 16 | 24 | 1024 | 4096 | 16 | 197 | 304,326,632 |
| `vit_l_32` | 32 | 24 | 1024 | 4096 | 16 | 50 | 306,535,400 |
| `vit_h_14` | 14 | 32 | 1280 | 5120 | 16 | 257 | 632,045,800 |
| `vit_cifar` (10 classes) | 4 | 9 | 192 | 384 | 3 | 65 | 2,697,610 |
"""

import math
from collections import OrderedDict
from typing import ClassVar, TypedDict, Unpack

import torch
from torch import Tensor, nn

from zoo.layers.attention import MultiheadAttention
from zoo.layers.checks import check_at_least_one, check_images, check_probability, is_traced
from zoo.layers.classifier import fresh_linear
from zoo.layers.initialization import deferred_init, reset

_LAYER_NORM_EPS = 1e-6


class MLP(nn.Sequential):
    """Two layers with a GELU between them, applied to each token separately.

    Weights start Xavier-uniform, biases as normal numbers of standard deviation 1e-6.

    Args:
        embed_dim: width of a token.
        mlp_dim: width of the hidden layer.
        dropout: probability of silencing an output of either layer during training.

    Shape:
        - input and output: ``(batch, tokens, embed_dim)``
    """

    def __init__(self, embed_dim: int, mlp_dim: int, *, dropout: float) -> None:
        super().__init__(
            nn.Linear(embed_dim, mlp_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_dim, embed_dim),
            nn.Dropout(dropout),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.normal_(layer.bias, std=1e-6)


class EncoderBlock(nn.Module):
    r"""One layer of the encoder: attention, then MLP, both on normalised tokens, both added.

    .. math::
        z'_l &= \mathrm{MSA}(\mathrm{LN}(z_{l-1})) + z_{l-1} \\
        z_l &= \mathrm{MLP}(\mathrm{LN}(z'_l)) + z'_l

    (equations 2 and 3), with MSA (appendix A) as :class:`~zoo.layers.attention.MultiheadAttention`
    has it.

    Args:
        embed_dim: width of a token.
        num_heads: attention heads.
        mlp_dim: width of the MLP's hidden layer.
        dropout: probability of silencing an output of a dense layer (but q, k, v) during training.
        attention_dropout: probability of silencing an attention weight during training.

    Shape:
        - input and output: ``(batch, tokens, embed_dim)``
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(embed_dim, eps=_LAYER_NORM_EPS)
        self.self_attention = MultiheadAttention(embed_dim, num_heads, dropout=attention_dropout)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = nn.LayerNorm(embed_dim, eps=_LAYER_NORM_EPS)
        self.mlp = MLP(embed_dim, mlp_dim, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attention(self.ln_1(x)))
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    """Position embedding, layers, and a last normalisation.

    The position embedding is learned, one vector per token, and starts as normal numbers of
    standard deviation 0.02.

    Args:
        num_tokens: patches and the class token.
        num_layers: encoder blocks.
        embed_dim: width of a token.
        num_heads: attention heads.
        mlp_dim: width of the MLPs' hidden layer.
        dropout: as in :class:`EncoderBlock`, and behind the position embedding.
        attention_dropout: as in :class:`EncoderBlock`.

    Shape:
        - input and output: ``(batch, num_tokens, embed_dim)``
    """

    @deferred_init
    def __init__(
        self,
        num_tokens: int,
        num_layers: int,
        *,
        embed_dim: int,
        num_heads: int,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, num_tokens, embed_dim))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(
            OrderedDict(
                (
                    f"encoder_layer_{i}",
                    EncoderBlock(
                        embed_dim,
                        num_heads,
                        mlp_dim=mlp_dim,
                        dropout=dropout,
                        attention_dropout=attention_dropout,
                    ),
                )
                for i in range(num_layers)
            )
        )
        self.ln = nn.LayerNorm(embed_dim, eps=_LAYER_NORM_EPS)

    def init_weights(self) -> None:
        nn.init.normal_(self.pos_embedding, std=0.02)
        reset(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln(self.layers(self.dropout(x + self.pos_embedding)))


class VisionTransformer(nn.Module):
    r"""Patches as tokens, a class token before them, the encoder, a linear classifier.

    .. math::
        z_0 &= [x_{class};\; x_p^1 E;\; \dots;\; x_p^N E] + E_{pos} \\
        y &= \mathrm{LN}(z_L^0)

    (equations 1 and 4). The projection E of the patches starts with variance 1 / fan-in
    (truncated normal), the class token and the classifier at zero: before the first step every
    class is equally likely, and only the classifier has a gradient that is not zero. The names of
    the parts are torchvision's, whose state dicts load as they are.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.
        image_size: height and width of the image, a multiple of ``patch_size``; the position
            embedding belongs to it.
        patch_size: height and width of a patch.
        num_layers: encoder blocks.
        embed_dim: width of a token.
        num_heads: attention heads, a divisor of ``embed_dim``.
        mlp_dim: width of the MLPs' hidden layer.
        dropout: probability of silencing an output of a dense layer (but q, k, v), or of the
            position embedding's sum, during training.
        attention_dropout: probability of silencing an attention weight during training.

    Shape:
        - input: ``(batch, in_channels, image_size, image_size)``
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    foreign_names: ClassVar[tuple[tuple[str, str], ...]] = (
        # Published files of torchvision are older than its present names.
        (r"mlp\.linear_1\.", "mlp.0."),
        (r"mlp\.linear_2\.", "mlp.3."),
        # timm's names.
        (r"^cls_token$", "class_token"),
        (r"^pos_embed$", "encoder.pos_embedding"),
        (r"^patch_embed\.proj\.", "conv_proj."),
        (r"^norm\.", "encoder.ln."),
        (r"^head\.", "heads.head."),
        (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
        (r"\.norm([12])\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
        (r"\.attn\.proj\.", ".self_attention.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.0."),
        (r"\.mlp\.fc2\.", ".mlp.3."),
    )

    @deferred_init
    def __init__(
        self,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
        image_size: int = 224,
        patch_size: int = 16,
        num_layers: int = 12,
        embed_dim: int = 768,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least_one(
            num_classes=num_classes,
            in_channels=in_channels,
            patch_size=patch_size,
            num_layers=num_layers,
            embed_dim=embed_dim,
            mlp_dim=mlp_dim,
        )
        if image_size < patch_size or image_size % patch_size:
            raise ValueError(
                f"image_size must be a multiple of the patch_size {patch_size}, not {image_size}"
            )
        check_probability(dropout=dropout, attention_dropout=attention_dropout)
        self.in_channels, self.image_size = in_channels, image_size
        # The same linear map of every patch: a convolution whose kernels do not overlap.
        self.conv_proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.encoder = Encoder(
            (image_size // patch_size) ** 2 + 1,
            num_layers,
            embed_dim=embed_dim,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            dropout=dropout,
            attention_dropout=attention_dropout,
        )
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(embed_dim, num_classes)))

    def init_weights(self) -> None:
        reset(self)
        fan_in = math.prod(self.conv_proj.weight.shape[1:])
        # A normal distribution cut at two standard deviations keeps only 0.8796 of its own.
        std = 1 / math.sqrt(fan_in) / 0.87962566103423978
        nn.init.trunc_normal_(self.conv_proj.weight, std=std, a=-2 * std, b=2 * std)
        assert self.conv_proj.bias is not None
        nn.init.zeros_(self.conv_proj.bias)
        for parameter in (self.class_token, *self.heads.parameters()):
            nn.init.zeros_(parameter)

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay spares, as DeiT's and timm's training does."""
        return {"class_token", "encoder.pos_embedding"}

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        head = fresh_linear(self.heads.get_submodule("head"), num_classes)
        self.heads = nn.Sequential(OrderedDict(head=head))
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels)
        if not is_traced(x) and x.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"x must be {self.image_size}x{self.image_size} pixels, the image_size that this "
                f"network's position embedding belongs to, not {x.size(2)}x{x.size(3)}"
            )
        x = self.conv_proj(x).flatten(2).transpose(1, 2)  # (batch, patches, embed_dim)
        x = torch.cat(
            [self.class_token.expand(x.size(0), -1, -1), x], dim=1
        )  # (batch, 1 + patches, embed_dim)
        return self.encoder(x)  # (batch, 1 + patches, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.heads(self.forward_features(x)[:, 0])  # (batch, num_classes)


class VisionTransformerOptions(TypedDict, total=False):
    """What the builders hand on to :class:`VisionTransformer`."""

    in_channels: int
    image_size: int
    dropout: float
    attention_dropout: float


def vit_ti_16(
    num_classes: int = 1000, **options: Unpack[VisionTransformerOptions]
) -> VisionTransformer:
    """ViT-Ti/16: the size of DeiT-Ti."""
    return VisionTransformer(
        num_classes,
        patch_size=16,
        num_layers=12,
        embed_dim=192,
        mlp_dim=768,
        num_heads=3,
        **options,
    )


def vit_s_16(
    num_classes: int = 1000, **options: Unpack[VisionTransformerOptions]
) -> VisionTransformer:
    """ViT-S/16: the size of DeiT-S."""
    return VisionTransformer(
        num_classes,
        patch_size=16,
        num_layers=12,
        embed_dim=384,
        mlp_dim=1536,
        num_heads=6,
        **options,
    )


def vit_b_16(
    num_classes: int = 1000, **options: Unpack[VisionTransformerOptions]
) -> VisionTransformer:
    """ViT-B/16: the paper's base size, that of BERT, with patches of 16x16 pixels."""
    return VisionTransformer(
        num_classes,
        patch_size=16,
        num_layers=12,
        embed_dim=768,
        mlp_dim=3072,
        num_heads=12,
        **options,
    )


def vit_b_32(
    num_classes: int = 1000, **options: Unpack[VisionTransformerOptions]
) -> VisionTransformer:
    """ViT-B/32: the base size with patches of 32x32 pixels, a quarter of the tokens."""
    return VisionTransformer(
        num_classes,
        patch_size=32,
        num_layers=12,
        embed_dim=768,
        mlp_dim=3072,
        num_heads=12,
        **options,
    )


def vit_l_16(
    num_classes: int = 1000, **options: Unpack[VisionTransformerOptions]
) -> VisionTransformer:
    """ViT-L/16: the paper's large size with patches of 16x16 pixels."""
    return VisionTransformer(
        num_classes,
        patch_size=16,
        num_layers=24,
        embed_dim=1024,
        mlp_dim=4096,
        num_heads=16,
        **options,
    )


def vit_l_32(
    num_classes: int = 1000, **options: Unpack[VisionTransformerOptions]
) -> VisionTransformer:
    """ViT-L/32: the large size with patches of 32x32 pixels, a quarter of the tokens."""
    return VisionTransformer(
        num_classes,
        patch_size=32,
        num_layers=24,
        embed_dim=1024,
        mlp_dim=4096,
        num_heads=16,
        **options,
    )


def vit_h_14(
    num_classes: int = 1000, **options: Unpack[VisionTransformerOptions]
) -> VisionTransformer:
    """ViT-H/14: the paper's huge size with patches of 14x14 pixels."""
    return VisionTransformer(
        num_classes,
        patch_size=14,
        num_layers=32,
        embed_dim=1280,
        mlp_dim=5120,
        num_heads=16,
        **options,
    )


def vit_cifar(
    num_classes: int = 10,
    *,
    in_channels: int = 3,
    image_size: int = 32,
    patch_size: int = 4,
    num_layers: int = 9,
    embed_dim: int = 192,
    num_heads: int = 3,
    mlp_dim: int = 384,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> VisionTransformer:
    """A small ViT for 32x32 images, to be trained from scratch; every size can be changed."""
    return VisionTransformer(
        num_classes,
        in_channels=in_channels,
        image_size=image_size,
        patch_size=patch_size,
        num_layers=num_layers,
        embed_dim=embed_dim,
        num_heads=num_heads,
        mlp_dim=mlp_dim,
        dropout=dropout,
        attention_dropout=attention_dropout,
    )
