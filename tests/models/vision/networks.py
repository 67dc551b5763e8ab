"""Every network for images, small where its sizes can be chosen: builder and shape of a sample."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from zoo.models.segmentation.fcn import fcn8s, fcn16s, fcn32s
from zoo.models.segmentation.unet import unet, unet_padded
from zoo.models.vision.airbench import airbench94
from zoo.models.vision.alexnet import alexnet, alexnet_2012
from zoo.models.vision.cnn import CNN
from zoo.models.vision.convnext import ConvNeXt
from zoo.models.vision.densenet import IMAGENET, DenseNet, densenet_cifar
from zoo.models.vision.fractalnet import FractalNet
from zoo.models.vision.googlenet import googlenet, googlenet_bn, googlenet_cifar
from zoo.models.vision.lenet import lenet5, lenet5_1998
from zoo.models.vision.mobilenet_v2 import mobilenet_v2, mobilenet_v2_cifar
from zoo.models.vision.preact_resnet import PreActBlock, PreActBottleneck, PreActResNet
from zoo.models.vision.resnet import BasicBlock, Bottleneck, ResNet, SmallImageResNet
from zoo.models.vision.resnet_cifar import CifarResNet, PlainNet
from zoo.models.vision.shallow_convnet import shallow_convnet
from zoo.models.vision.squeezenet import squeezenet1_0, squeezenet1_1
from zoo.models.vision.vgg import vgg11, vgg11_bn, vgg11_cifar
from zoo.models.vision.vision_transformer import vit_cifar
from zoo.models.vision.wide_resnet import WideResNet
from zoo.models.vision.zfnet import zfnet


def narrow(build: Callable[..., nn.Module], **arguments: object) -> nn.Module:
    """A network whose hidden layers of 4096 units have 16, and so a hundredth of its weights."""
    with torch.device("meta"):
        model = build(**arguments)
        for module in list(model.modules()):
            for name, layer in module.named_children():
                if isinstance(layer, nn.Linear):
                    sizes = (layer.in_features, layer.out_features)
                    sizes = (16 if size == 4096 else size for size in sizes)
                    setattr(module, name, nn.Linear(*sizes))
    if torch.get_default_device().type != "meta":
        model.to_empty(device="cpu").init_weights()
    return model


class Network(NamedTuple):
    build: Callable[..., nn.Module]  # takes the number of classes as ``num_classes``
    shape: tuple[int, ...]  # of a sample


NETWORKS = {
    "airbench94": Network(airbench94, (3, 9, 9)),
    "alexnet": Network(partial(narrow, alexnet), (3, 63, 63)),
    "alexnet_2012": Network(partial(narrow, alexnet_2012), (3, 67, 67)),
    "convnext": Network(partial(ConvNeXt, (8, 16, 24, 32), (1, 1, 2, 1)), (3, 32, 32)),
    "densenet": Network(partial(DenseNet, (2, 3, 2, 1), IMAGENET, growth_rate=6), (3, 32, 32)),
    "cnn": Network(partial(CNN, in_channels=3, image_size=8), (3, 8, 8)),
    "densenet_cifar": Network(partial(densenet_cifar, depth=10), (3, 8, 8)),
    "fcn8s": Network(partial(fcn8s, classifier_channels=16), (3, 8, 20)),
    "fcn16s": Network(partial(fcn16s, classifier_channels=16), (3, 8, 20)),
    "fcn32s": Network(partial(fcn32s, classifier_channels=16), (3, 8, 20)),
    "fractalnet": Network(partial(FractalNet, (8, 16), num_columns=3), (3, 8, 8)),
    "googlenet": Network(googlenet, (3, 79, 79)),
    "googlenet_bn": Network(googlenet_bn, (3, 32, 32)),
    "googlenet_cifar": Network(googlenet_cifar, (3, 8, 8)),
    "lenet5": Network(lenet5, (1, 32, 32)),
    "lenet5_1998": Network(lenet5_1998, (1, 32, 32)),
    "mobilenet_v2": Network(mobilenet_v2, (3, 32, 32)),
    "mobilenet_v2_cifar": Network(mobilenet_v2_cifar, (3, 16, 16)),
    "preact_resnet": Network(partial(PreActResNet, PreActBlock, 2), (3, 8, 8)),
    "preact_resnet_bottleneck": Network(partial(PreActResNet, PreActBottleneck, 2), (3, 8, 8)),
    "resnet": Network(partial(ResNet, BasicBlock, (1, 1, 1, 1)), (3, 32, 32)),
    "resnet_bottleneck": Network(partial(ResNet, Bottleneck, (1, 1, 1, 1)), (3, 32, 32)),
    "resnet_small_images": Network(partial(SmallImageResNet, BasicBlock, (1,) * 4), (3, 8, 8)),
    "resnet_cifar": Network(partial(CifarResNet, depth=8), (3, 8, 8)),
    "plainnet": Network(partial(PlainNet, depth=8), (3, 8, 8)),
    "shallow_convnet": Network(
        partial(shallow_convnet, in_channels=5, input_length=120, batch_norm=True), (5, 120)
    ),
    "squeezenet1_0": Network(squeezenet1_0, (3, 32, 32)),
    "squeezenet1_1": Network(squeezenet1_1, (3, 32, 32)),
    "unet": Network(partial(unet, base_channels=4, num_levels=2), (1, 48, 52)),
    "unet_padded": Network(partial(unet_padded, base_channels=4, num_levels=2), (1, 17, 18)),
    "vgg": Network(partial(narrow, vgg11), (3, 32, 32)),
    "vgg_bn": Network(partial(narrow, vgg11_bn), (3, 32, 32)),
    "vgg_cifar": Network(vgg11_cifar, (3, 32, 32)),
    "vit": Network(partial(vit_cifar, image_size=8, num_layers=2), (3, 8, 8)),
    "wide_resnet": Network(partial(WideResNet, depth=10, widen_factor=2), (3, 8, 8)),
    "zfnet": Network(partial(narrow, zfnet), (3, 47, 47)),
}
