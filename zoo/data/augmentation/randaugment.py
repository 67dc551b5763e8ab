"""RandAugment on whole batches, with other operations for each image in the batch.

Cubuk, Zoph, Shlens and Le, "RandAugment: Practical automated data augmentation with a reduced
search space", 2020, https://arxiv.org/abs/1909.13719. All 14 operations of the paper, with the
magnitudes of torchvision's transform of that name and, for bytes, its results; but where a blend of
colour or sharpness falls on a whole number, the two may round it to neighbouring levels.

Every operation is one of three things: it moves pixels, it blends the image with another made
from it, or it looks each value up in a table. So a round has three steps, whatever the images of
a batch have drawn, and each step changes the images whose operation is of its kind.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.augmentation.base import Augmentation
from zoo.data.augmentation.colour import blend, grey, mean_grey, to_bytes

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDS = ("brightness", "color", "contrast", "sharpness")
TABLES = ("posterize", "solarize", "autocontrast", "equalize", "identity")
OPERATIONS = (*MOVES, *BLENDS, *TABLES)
LEVELS = 30  # the greatest magnitude
Change = Callable[[Tensor, Tensor, Tensor], Tensor]  # images, operations, signs -> images


class RandAugment(Augmentation):
    """Applies ``num_ops`` operations, drawn for each image, one after the other.

    Args:
        num_ops: the paper's N.
        magnitude: the paper's M, from 0 to 30: how far each operation goes. Where it may go either
            way, the way is drawn.

    Shape:
        - images: ``(batch, channels, height, width)``, uint8, 1 or 3 channels
        - output: the same
    """

    def __init__(self, num_ops: int = 2, magnitude: int = 9) -> None:
        if num_ops < 1:
            raise ValueError(f"num_ops must be at least 1, not {num_ops}")
        if not 0 <= magnitude <= LEVELS:
            raise ValueError(f"magnitude must be from 0 to {LEVELS}, not {magnitude}")
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.num_draws = 2 * num_ops
        self._matrices: dict[tuple[object, ...], Tensor] = {}

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        for number in range(self.num_ops):
            operation = (draws[:, 2 * number] * len(OPERATIONS)).long()
            images = self.operate(images, operation, draws[:, 2 * number + 1] < 0.5)
        return images

    def operate(self, images: Tensor, operation: Tensor, backwards: Tensor) -> Tensor:
        """Applies one operation to each image.

        Shape:
            - operation: ``(batch,)``, int64, numbers of :data:`OPERATIONS`
            - backwards: ``(batch,)``, bool: whether it goes the other way
        """
        last_move, last_blend = len(MOVES), len(MOVES) + len(BLENDS)
        moves, tables = operation < last_move, operation >= last_blend
        images = _change_some(images, moves, self._move, operation, backwards)
        images = _change_some(images, ~(moves | tables), self._blend, operation, backwards)
        return _change_some(images, tables, self._look_up, operation, backwards)

    def _move(self, images: Tensor, operation: Tensor, backwards: Tensor) -> Tensor:
        """Shows at each place the nearest pixel to where it comes from, and black from outside."""
        batch, channels, height, width = images.shape
        table = self._matrix_table(height, width, images.device)
        coefficients = table[backwards.long(), operation.clamp(max=len(MOVES) - 1)]  # (batch, 6)
        xx, xy, x0, yx, yy, y0 = coefficients[..., None, None].unbind(1)  # each (batch, 1, 1)
        x = torch.arange(width, device=images.device) - (width - 1) / 2
        y = (torch.arange(height, device=images.device) - (height - 1) / 2).unsqueeze(1)
        column = (xx * x + xy * y + x0 + (width - 1) / 2).round().long()  # (batch, height, width)
        row = (yx * x + yy * y + y0 + (height - 1) / 2).round().long()
        outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
        first = torch.arange(0, batch * height, height, device=images.device).view(-1, 1, 1)
        place = (first + row.clamp(0, height - 1)) * width + column.clamp(0, width - 1)
        pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)  # (batch * height * width, c)
        moved = pixels.index_select(0, place.view(-1)).masked_fill(outside.view(-1, 1), 0)
        return moved.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _matrix_table(self, height: int, width: int, device: torch.device) -> Tensor:
        """Where a pixel comes from, for each way and move, by coordinates from the centre."""
        key = (height, width, device)
        if key not in self._matrices:
            level, ways = self.magnitude / LEVELS, []
            for sign in (1, -1):
                shear, angle = sign * 0.3 * level, sign * math.radians(30 * level)
                right = sign * int(150 / 331 * width * level)
                down = sign * int(150 / 331 * height * level)
                cos, sin = math.cos(angle), math.sin(angle)
                # Shears keep the upper left corner where it is, rotations the centre.
                ways.append(
                    (
                        (1, shear, shear * height / 2, 0, 1, 0),
                        (1, 0, 0, shear, 1, shear * width / 2),
                        (1, 0, -right, 0, 1, 0),
                        (1, 0, 0, 0, 1, -down),
                        (cos, -sin, 0, sin, cos, 0),
                    )
                )
            self._matrices[key] = torch.tensor(ways, dtype=torch.float32, device=device)
        return self._matrices[key]

    def _blend(self, images: Tensor, operation: Tensor, backwards: Tensor) -> Tensor:
        """Leads towards or away from black, grey, one grey, or the blurred image."""
        step = 0.9 * self.magnitude / LEVELS
        factor = torch.where(backwards, 1 - step, 1 + step)
        others = torch.zeros_like(images, dtype=torch.float32)
        degenerate = {"contrast": mean_grey(images), "sharpness": _blur(images)}
        degenerate["color"] = grey(images) if images.shape[1] == 3 else images.float()
        for name, other in degenerate.items():
            others = torch.where(_is(name, operation), other, others)
        # Rounding must not touch what an image's own colours or blurring leave alone.
        same = others == images
        return torch.where(same, images, blend(images, others, factor))

    def _look_up(self, images: Tensor, operation: Tensor, backwards: Tensor) -> Tensor:
        """Puts another value for each value of a channel."""
        del backwards
        values = torch.arange(256, device=images.device)
        flat = images.flatten(2).long()  # (batch, channels, pixels)
        ones = torch.ones_like(flat)
        counts = flat.new_zeros((*flat.shape[:2], 256)).scatter_add_(2, flat, ones)
        least, most = (f(flat, 2, keepdim=True) for f in (torch.amin, torch.amax))
        bits = round(8 - self.magnitude / LEVELS * 4)
        threshold = 255 * (LEVELS - self.magnitude) / LEVELS
        entries = {
            "posterize": values & ((1 << bits) - 1) << (8 - bits),
            "solarize": torch.where(values >= threshold, 255 - values, values),
            "autocontrast": _stretch(values, least, most),
            "equalize": _equalize(values, counts, most),
        }
        table = values.expand_as(counts)  # (batch, channels, 256)
        for name, entry in entries.items():
            table = torch.where(_is(name, operation).squeeze(3), entry, table)
        return table.gather(2, flat).to(torch.uint8).view(images.shape)


def _is(name: str, operation: Tensor) -> Tensor:
    return (operation == OPERATIONS.index(name)).view(-1, 1, 1, 1)


def _blur(images: Tensor) -> Tensor:
    """Each pixel's mean with its neighbours, itself counting five times; the margin stays."""
    values = images.float()
    if min(images.shape[2:]) < 3:
        return values
    height, width = images.shape[2:]
    total = 4 * values[..., 1:-1, 1:-1]
    for y in range(3):  # sums of whole numbers, the same in any order
        for x in range(3):
            total = total + values[..., y : y + height - 2, x : x + width - 2]
    blurred = values.clone()
    blurred[..., 1:-1, 1:-1] = (total / 13).round()
    return blurred


def _stretch(values: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """The darkest value of a channel becomes 0, the brightest 255."""
    width = (most - least) * (1 / 255.0)
    stretched = to_bytes((values - least) / width.clamp(min=1 / 255)).long()
    return torch.where(most == least, values, stretched)


def _equalize(values: Tensor, counts: Tensor, most: Tensor) -> Tensor:
    """Makes all values of a channel about equally frequent, as Pillow does."""
    step = (counts.sum(2, keepdim=True) - counts.gather(2, most)) // 255
    before = F.pad(counts.cumsum(2)[..., :-1], (1, 0))  # pixels that are darker
    entries = ((before + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step == 0, values, entries)


def _change_some(
    images: Tensor, chosen: Tensor, change: Change, operation: Tensor, backwards: Tensor
) -> Tensor:
    """Applies a change to the chosen images only."""
    if images.device.type != "cpu":  # where a list of indices would have to be waited for
        changed = change(images, operation, backwards)
        return torch.where(chosen.view(-1, 1, 1, 1), changed, images)
    index = chosen.nonzero().squeeze(1)
    if not len(index):
        return images
    pixels = images.permute(0, 2, 3, 1)  # (batch, height, width, channels)
    some = pixels.index_select(0, index).permute(0, 3, 1, 2)
    changed = change(some, operation[index], backwards[index])
    return pixels.index_copy(0, index, changed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
