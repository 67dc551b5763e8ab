r"""ZFNet (Zeiler and Fergus, 2013).

"Visualizing and understanding convolutional networks", https://arxiv.org/abs/1311.2901

Projecting the activity of any map back to pixels shows what it responds to. AlexNet's first layer,
so examined, lacks the middle frequencies and its second suffers from aliasing; smaller kernels at
smaller strides, 7x7/2 and then 5x5/2, cure both.

| layer (figure 3) | size (224x224 input) | parameters |
|---|---|---|
| conv1, 7x7/2 | 96 x 110 x 110 | 14,208 |
| pool 3x3/2, normalisation | 96 x 55 x 55 | |
| conv2, 5x5/2 | 256 x 26 x 26 | 614,656 |
| pool 3x3/2, normalisation | 256 x 13 x 13 | |
| conv3, 3x3 | 384 x 13 x 13 | 885,120 |
| conv4, 3x3 | 384 x 13 x 13 | 1,327,488 |
| conv5, 3x3 | 256 x 13 x 13 | 884,992 |
| pool 3x3/2 | 256 x 6 x 6 | |
| fc6, fc7, fc8 | 4096, 4096, 1000 | 37,752,832, 16,781,312, 4,097,000 |
| total: `zfnet` | | 62,357,608 |

Differences from the paper:

- What it leaves open. Paddings are those that give figure 3's sizes: one pixel around the image,
  none in conv2, and poolings that keep a last, incomplete window. "Contrast normalized across
  feature maps" refers to Krizhevsky et al. (2012) and Jarrett et al. (2009) for details; here it is
  the former's local response normalisation with its constants, behind the pooling as in figure 3.
- "All weights are initialized to 10^-2" would keep all maps of a layer alike forever; they start
  from N(0, 0.01²), as in Krizhevsky et al., and biases from 0.
- Scaling first-layer kernels of more than 0.1 RMS back to 0.1 belongs to training, not to the
  network, and is not done here.
- Images of other sizes: the last maps are averaged to 6x6, which at 224x224 they are already.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.classifier import fresh_linear
from zoo.layers.initialization import deferred_init, reset

_SMALLEST = 47  # 22, 4 and 2 pixels reach the three poolings


class ZFNet(nn.Module):
    """AlexNet with a finer view of the image, in one tower.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.
        dropout: probability of silencing a unit of the two hidden layers during training.

    Shape:
        - input: ``(batch, in_channels, height, width)``, at least 47x47
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range, or the input not such images.
    """

    @deferred_init
    def __init__(
        self, num_classes: int = 1000, *, in_channels: int = 3, dropout: float = 0.5
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes, in_channels=in_channels)
        check_probability(dropout=dropout)
        self.in_channels = in_channels
        self.conv1 = nn.Conv2d(in_channels, 96, 7, stride=2, padding=1)
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        # b = a / (2 + 1e-4 * sum of a² over 5 maps)^0.75; torch takes the mean, hence 5 * 1e-4.
        self.norm1 = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2)
        self.conv2 = nn.Conv2d(96, 256, 5, stride=2)
        self.pool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm2 = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1)
        self.pool5 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = nn.Linear(4096, 4096)
        self.drop7 = nn.Dropout(dropout)
        self.fc8 = nn.Linear(4096, num_classes)

    def init_weights(self) -> None:
        reset(self)
        for layer in self.children():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.fc8 = fresh_linear(self.fc8, num_classes)
        nn.init.normal_(self.fc8.weight, std=0.01)
        nn.init.zeros_(self.fc8.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels, smallest=_SMALLEST)
        # Sizes in the comments are those of 224x224 images.
        x = F.relu(self.conv1(x), inplace=True)  # (batch, 96, 110, 110)
        x = self.norm1(self.pool1(x))  # (batch, 96, 55, 55)
        x = F.relu(self.conv2(x), inplace=True)  # (batch, 256, 26, 26)
        x = self.norm2(self.pool2(x))  # (batch, 256, 13, 13)
        x = F.relu(self.conv3(x), inplace=True)  # (batch, 384, 13, 13)
        x = F.relu(self.conv4(x), inplace=True)
        x = F.relu(self.conv5(x), inplace=True)  # (batch, 256, 13, 13)
        return self.avgpool(self.pool5(x))  # (batch, 256, 6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x).flatten(1)  # (batch, 256 * 6 * 6)
        x = self.drop6(F.relu(self.fc6(x), inplace=True))  # (batch, 4096)
        x = self.drop7(F.relu(self.fc7(x), inplace=True))
        return self.fc8(x)  # (batch, num_classes)


def zfnet(num_classes: int = 1000, *, in_channels: int = 3, dropout: float = 0.5) -> ZFNet:
    """ZFNet as in figure 3 of the paper."""
    return ZFNet(num_classes, in_channels=in_channels, dropout=dropout)
