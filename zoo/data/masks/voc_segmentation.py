"""Pascal VOC 2012 segmentation: photographs with the class of each pixel, of twenty and background.

Everingham et al., 2010, "The Pascal Visual Object Classes (VOC) Challenge",
http://host.robots.ox.ac.uk/pascal/VOC/voc2012. 1,464 images for training and 1,449 for
validation. The test images' masks are not public, and by convention results are those on val; so
there is no test split here, and a checkpoint that val has selected looks a little better than it
is.
"""

from pathlib import Path
from typing import Any, Unpack

from zoo.data.augmentation.deformation import NO_CLASS
from zoo.data.download import torchvision_download
from zoo.data.masks.from_files import MaskOptions, Pair, StreamedMasks

FOLDER = Path("VOCdevkit") / "VOC2012"
SOURCE = "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"


class VOCSegmentation(StreamedMasks):
    """Random tiles of photographs for training, whole photographs one by one for evaluation.

    The outlines of things are marked 255 in the masks and ignored, as is what a tile shows beyond
    its image. The files are those of torchvision, in ``root/VOCdevkit/VOC2012``; if they are
    missing, torchvision downloads them (2 GB) and compares the checksum.

    Args:
        batch_size: tiles a batch.
        tile_size: height and width of a tile; the longer side of an image has 500 pixels.
        options: see :class:`~zoo.data.masks.from_files.StreamedMasks`.
    """

    splits = ("train", "val")
    class_names = (
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    )

    def __init__(
        self, *, batch_size: int = 8, tile_size: int = 320, **options: Unpack[MaskOptions]
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            tile_size=tile_size,
            short_side=None,
            classes={**{i: i for i in range(len(self.class_names))}, NO_CLASS: NO_CLASS},
            **options,
        )

    def _pairs(self) -> dict[str, list[Pair]]:
        folder = Path(self.root) / FOLDER
        with torchvision_download(
            f"Pascal VOC 2012 not found in {folder}",
            folder=self.root,
            source=SOURCE,
            advice=f"unpack {Path(SOURCE).name} in {self.root} by hand",
        ):
            from torchvision import datasets

            parts: dict[str, Any] = {
                # It would unpack the archive again each time.
                split: datasets.VOCSegmentation(
                    self.root, year="2012", image_set=split, download=not folder.is_dir()
                )
                for split in self.splits
            }
        return {
            split: [(Path(i), Path(m)) for i, m in zip(part.images, part.masks, strict=True)]
            for split, part in parts.items()
        }
