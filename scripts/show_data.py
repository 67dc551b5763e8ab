"""Draws a grid of the images that a network is trained on, augmented, with their labels.

    python scripts/show_data.py data=cifar10 data.augment=randaugment out=cifar10.png
    python scripts/show_data.py experiment=unet_isbi2012 count=4 epoch=3

What is shown is what the training of that configuration and seed sees at the beginning of the
epoch, with the normalisation undone; masks are laid over their images, pixels without a class
in cream. Configuration words are those of train.py; besides them:

split=train    which split; val and test are never augmented
epoch=0        which epoch's augmentation
count=32       how many images
out=data.png   the file, which must not exist yet
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clone  # noqa: F401
from zoo.app.output import check_new, completed
from zoo.app.program import program
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, as_config_error

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
PATHS = ("split", "epoch", "count", "out")
COLUMNS = 8
SMALLEST, LARGEST = 96, 256  # pixels a side of an image in the grid
LINE = 14  # height of a line of text


def show(line: CommandLine) -> None:
    """Writes the grid that the command line asks for and prints its path."""
    out = Path(line.options.get("out", "data.png"))
    check_new(out)
    if out.suffix.lower() not in FORMATS:
        raise ConfigError(f"out={out}: must end in .png or .jpg")
    epoch, count = line.integer("epoch", 0, least=0), line.integer("count", 32, least=1)

    from zoo.config.compose import compose

    recipe = compose(
        line.overrides, config_dir=line.flags.get("--config-dir"), trusted=line.trusted
    )
    data: Any = recipe.data.build()
    split = line.options.get("split", "train")
    if split not in data.splits:
        raise ConfigError(f"split={split}: these data have {', '.join(data.splits)}")
    with as_config_error("data"):
        data.setup(seed=recipe.settings.seed)
    print(*data.notes, sep="\n", end="\n" if data.notes else "")
    cells: list[tuple[Image, str]] = []
    for batch in data.batches(split, epoch):
        cells += drawn(batch, data)
        if len(cells) >= count:
            break
    with completed(out) as part:
        grid(cells[:count]).save(part, format=FORMATS[out.suffix.lower()])
    print(out)


def drawn(batch: Any, data: Any) -> list[tuple["Image", str]]:
    """Each image of a batch and what stands below it."""
    import torch
    from PIL import Image

    from zoo.figures.masks import overlay

    normalize = getattr(data, "normalize", None)
    if normalize is None or not isinstance(batch, tuple) or batch[0].ndim != 4:
        raise ConfigError(f"data: {type(data).__name__} holds no images")
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (normalize.mean, normalize.std))
    images = (batch[0].cpu() * std + mean).clamp(0, 1).expand(-1, 3, -1, -1)
    targets, names = batch[1].cpu(), data.class_names
    cells = []
    for image, target in zip(images, targets, strict=True):
        text = ""
        if target.ndim == 2:
            image = overlay(image, target)
        elif target.ndim == 3:  # an image, too: beside it
            target = (target * std + mean).clamp(0, 1)
            image = torch.cat((image, target.expand(3, -1, -1)), dim=2)  # (3, height, 2 * width)
        else:
            text = label(target, names)
        pixels = image.permute(1, 2, 0).mul(255).round().byte()  # (height, width, 3)
        cells.append((Image.fromarray(pixels.numpy()), text))
    return cells


def label(target: "Tensor", names: Sequence[str]) -> str:
    """The name of a class, or the names and shares of those that are mixed, a line for each."""
    if target.ndim == 0:
        return names[int(target)]
    shares = [(float(share), name) for share, name in zip(target, names, strict=True) if share > 0]
    return "\n".join(f"{share:.2f} {name}" for share, name in sorted(shares, reverse=True))


def grid(cells: Sequence[tuple["Image", str]]) -> "Image":
    """All images in rows, brought to a size at which they can be looked at."""
    from PIL import Image, ImageDraw, ImageFont

    longest = max(max(image.size) for image, _ in cells)
    side = min(max(SMALLEST, longest), LARGEST)
    lines = max(text.count("\n") + 1 if text else 0 for _, text in cells)
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    width, height = side + 4, side + 4 + LINE * lines
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, (image, text) in enumerate(cells):
        left, top = place % columns * width + 2, place // columns * height + 2
        scale = side / max(image.size)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        # Small images are shown pixel by pixel.
        method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
        sheet.paste(image.resize(size, method), (left, top))
        for i, words in enumerate(text.split("\n")):
            while words and draw.textlength(words, font) > side:
                words = words[:-1]
            draw.text((left, top + side + LINE * i), words, fill="black", font=font)
    return sheet


main = program(show, __doc__, options=PATHS, flags=("--config-dir",))

if __name__ == "__main__":
    sys.exit(main())
