"""How samples became what they are: those of every evaluation that a run has shown, in one strip.

After each of them a generative task draws from the same random numbers, and TensorBoard keeps the
images. A resumed run takes back what the killed one had written beyond its checkpoint, so that the
strip is that of a run that was never killed. Nothing else has to be remembered in training.
"""

import io
from pathlib import Path

import torch
from torch import Tensor

from zoo.app.predict import ability
from zoo.app.prediction_files import write_image
from zoo.app.rebuild import Evaluation
from zoo.config.errors import ConfigError
from zoo.figures.grids import enlarge, image_grid

SHOWN = "samples"
"""What a generative task calls the grid of its samples."""


def draw_over_training(
    parts: Evaluation, count: int, *, out: Path | None, run: Path
) -> tuple[Path, list[int]]:
    """Writes a row of samples for every evaluation whose samples are in TensorBoard.

    Args:
        parts: of the run.
        count: samples a row: the first of the grid.
        out: a new `.png` file; None: `samples_over_training.png` in the run folder.
        run: the run folder.

    Returns:
        The file, and the steps of the rows.

    Raises:
        ConfigError: this run has shown no images of samples, or not as many, or the file cannot be
            written.
    """
    from zoo.training.event_files import read_images

    ability(parts, "sample", "over_training: this run draws no samples; name a generator's")
    if not hasattr(parts.data, "preprocess"):
        raise ConfigError(
            f"over_training: {type(parts.data).__name__} gives no images; name a run on images"
        )
    grids = read_images(run / "val", SHOWN)
    if not grids:
        raise ConfigError(
            f"over_training: there are no images of samples in {run / 'val'}; name a run with "
            "logger.tensorboard=true"
        )
    size = parts.data.facts()["image_size"]
    side = enlarge(torch.empty(1, 1, size, size)).size(-1)
    rows = [_tiles(content, side, count) for content in grids.values()]
    out = out or run / "samples_over_training.png"
    write_image(image_grid(torch.cat(rows), columns=count), out)
    return out, list(grids)


def _tiles(content: bytes, side: int, count: int) -> Tensor:
    """The first images of a grid, ``(count, 3, side, side)`` in [0, 1].

    Raises:
        ConfigError: there are not as many.
    """
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255
    step = side + image_grid(torch.zeros(1, 1, 1, 1), columns=1).size(-1) - 1  # with the margin
    tiles = pixels.unfold(1, side, step).unfold(2, side, step)  # (3, rows, columns, side, side)
    tiles = tiles.permute(1, 2, 0, 3, 4).flatten(0, 1)  # (rows * columns, 3, side, side)
    if len(tiles) < count:
        raise ConfigError(f"over_training={count}: this run shows only {len(tiles)} samples")
    return tiles[:count]
