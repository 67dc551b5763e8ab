"""Electron-microscope slices with their cell membranes: the data set of the U-Net paper.

EM segmentation challenge of ISBI 2012: Arganda-Carreras et al., 2015, "Crowdsourcing the creation
of image segmentation algorithms for connectomics", https://doi.org/10.3389/fnana.2015.00142; data
by Cardona et al., 2010, https://doi.org/10.1371/journal.pbio.1000502. Thirty slices of 512x512
pixels (4x4 nm each) of the nerve cord of a fruit fly larva. The challenge keeps the labels of its
own thirty test slices to itself; so slices 0-19 are for training, 20-23 for validation and 24-29
for the test. Neighbouring slices resemble one another: a slice next to another split is easier
than one of another animal.
"""

from pathlib import Path
from typing import Unpack

import torch

from zoo.data.download import DataError
from zoo.data.masks.base import (
    Labelled,
    MaskModule,
    NormalizeAnySize,
    check_pair,
    read_image,
    read_mask,
    to_classes,
)
from zoo.data.masks.tiles import Flips, Tiling, TilingOptions, tiled_loaders, training_tile
from zoo.data.module import Part

SLICES = {"train": range(20), "val": range(20, 24), "test": range(24, 30)}
MEAN, STD = 0.4865, 0.1665  # of the training slices, values 0 to 1
SOURCE = "https://imagej.net/events/isbi-2012-segmentation-challenge"


class ISBI2012(MaskModule):
    """Grey slices; class 0 is membrane and class 1 the inside of a cell.

    Training sees random tiles, bent and turned; evaluation sees whole slices.

    Files: ``root/isbi2012/image/0.png`` to ``29.png``, and ``label`` alike (black membranes on
    white). They are not downloaded, because the challenge asks for a registration.

    Args:
        root: folder of all data.
        tiles_per_image: tiles of each slice an epoch.
        flips: ``horizontal``: mirror half of the tiles; ``all``: the eight symmetries of a square.
        elastic: standard deviation of the elastic deformation in pixels (the paper's is 10); 0 for
            none.
        jitter: greatest change of brightness and contrast; 0 for none.
        options: see :class:`~zoo.data.masks.tiles.Tiling`. An ``overhang`` of 92 lets the paper's
            network, which loses as many pixels on each side, learn from the edges as well.
    """

    splits = ("train", "val", "test")
    changeable = ("root",)
    in_channels = 1
    class_names = ("membrane", "inside")

    def __init__(
        self,
        *,
        root: str = "data",
        tiles_per_image: int = 8,
        flips: Flips = "all",
        elastic: float = 10.0,
        jitter: float = 0.1,
        **options: Unpack[TilingOptions],
    ) -> None:
        super().__init__()
        self.folder = Path(root) / "isbi2012"
        self.tiling = Tiling(
            tiles_per_image=tiles_per_image, flips=flips, elastic=elastic, jitter=jitter, **options
        )
        self.image_size = 512 if self.tiling.tile_size is None else self.tiling.tile_size
        self.normalize = NormalizeAnySize([MEAN], [STD])

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        self._check_files()
        splits = {
            split: [self._read(number) for number in numbers] for split, numbers in SLICES.items()
        }
        self.image_size = training_tile(splits["train"], self.tiling)[0]
        self.loaders = tiled_loaders(
            splits,
            self.tiling,
            num_classes=len(self.class_names),
            normalize=self.normalize,
            seed=seed,
            device=device,
            part=part,
        )

    def _check_files(self) -> None:
        missing = [path for n in range(30) for path in self._paths(n) if not path.is_file()]
        if missing:
            raise DataError(
                f"{missing[0]} is missing, and cannot be downloaded because the challenge asks for "
                f"a registration: get its 30 training slices from {SOURCE} and save them as "
                f"{self.folder / 'image'}/0.png to 29.png, and their labels (0 = membrane, 255 = "
                f"inside) as {self.folder / 'label'}/0.png to 29.png"
            )

    def _paths(self, number: int) -> tuple[Path, Path]:
        return self.folder / "image" / f"{number}.png", self.folder / "label" / f"{number}.png"

    def _read(self, number: int) -> Labelled:
        image, label = self._paths(number)
        values, _ = read_mask(label)
        mask = to_classes(
            label, values, {0: 0, 255: 1}, advice="save the label as a black-and-white PNG file"
        )
        sample = read_image(image, 1), mask
        check_pair(image, label, sample)
        return sample
