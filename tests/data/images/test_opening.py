"""One function reads every image: what it makes of each kind, and what it refuses."""

import os
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.images.digits import Digits
from zoo.data.images.image_folder import ImageFolder
from zoo.data.images.opening import ImageError, ImageReader, depth_note, shown
from zoo.data.masks.base import read_mask
from zoo.data.masks.mask_folder import MaskFolder

ORIENTATION = 0x0112
RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
COLOUR = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1)


def saved(path, pixels, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def read(path, **options):
    return ImageReader(**options).read(path)


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_divided_by_65535_and_never_stretched(suffix, tmp_path):
    values = np.array([[0, 257, 514], [32_768, 65_278, 65_535]], dtype=np.uint16)
    for pixels in (values, values // 4):  # the darker one stays darker
        image = read(saved(tmp_path / f"a.{suffix}", pixels))
        assert image.mode == "L"
        assert np.array_equal(np.array(image), np.rint(pixels / 257))


def test_max_value_is_white_and_a_greater_value_is_refused(tmp_path):
    path = saved(tmp_path / "a.png", np.array([[0, 2048, 4095]], dtype=np.uint16))
    assert np.array(read(path, max_value=4095)).tolist() == [[0, 128, 255]]
    with pytest.raises(ImageError, match=r"from 0 to 4,095, are outside of 0 to 1,023: set max_v"):
        read(path, max_value=1023)


def test_floating_point_lies_in_0_to_1_or_is_refused_with_its_range(tmp_path):
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    path = tmp_path / "a.tiff"
    assert np.array(read(saved(path, values))).tolist() == [[0, 128, 255]]
    assert np.array(read(saved(path, values * 7), max_value=7)).tolist() == [[0, 128, 255]]
    for wrong in (values * 7, values - 0.5, values * np.nan):
        with pytest.raises(ImageError, match=r"a\.tiff .*its values, from .* are outside of 0 to"):
            read(saved(path, wrong))


def test_whole_numbers_of_32_bits_need_a_white(tmp_path):
    path = saved(tmp_path / "a.tiff", np.array([[0, 500, 1000]], dtype=np.int32))
    with pytest.raises(ImageError, match="from 0 to 1,000, are of 32 bits: set max_value"):
        read(path)
    assert np.array(read(path, max_value=1000)).tolist() == [[0, 128, 255]]


def test_max_value_is_refused_for_colours_of_sixteen_bits(tmp_path):
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 1 1 255\n" + bytes([1, 2, 3]))
    assert np.array(read(path, max_value=4095)).tolist() == [[[1, 2, 3]]]
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)  # one pixel, 16 bits, RGB
    pixel = zlib.compress(b"\0" + struct.pack(">HHH", 4000, 4000, 0))
    parts = [(b"IHDR", header), (b"IDAT", pixel), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    ]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert np.array(read(tmp_path / "a.png")).tolist() == [[[15, 15, 0]]]
    with pytest.raises(ImageError, match="max_value=4095 cannot be applied to colours of 16 bits"):
        read(tmp_path / "a.png", max_value=4095)


@pytest.mark.parametrize(
    ("mode", "expected", "tolerance"),
    [("L", "L", 0), ("1", "L", 0), ("RGB", "RGB", 0), ("P", "RGB", 0), ("CMYK", "RGB", 1)],
)
def test_every_usual_mode_becomes_grey_or_colour(mode, expected, tolerance, tmp_path):
    pixels = RAMP if mode in ("L", "1") else COLOUR
    source = Image.fromarray(pixels).convert(mode)
    suffix = "tiff" if mode == "CMYK" else "png"
    image = read(saved(tmp_path / f"a.{suffix}", source))
    assert image.mode == expected
    wanted = np.array(source.convert(expected)).astype(int)
    assert abs(np.array(image).astype(int) - wanted).max() <= tolerance


def test_a_mode_without_a_rule_is_refused(tmp_path):
    lab = Image.merge("LAB", [Image.fromarray(RAMP)] * 3)
    with pytest.raises(ImageError, match=r"a\.tiff cannot be read .*it is of mode LAB: save it as"):
        read(saved(tmp_path / "a.tiff", lab))


@pytest.mark.parametrize("background", ["white", "black", "#ff8000"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparent_pixels_are_laid_on_the_background(mode, background, tmp_path):
    """Whether by an alpha channel, a palette's entry or one value that is transparent."""
    black = Image.new(mode.removesuffix("A") if mode.endswith("A") else mode, (4, 2), 0)
    options = {}
    if mode.endswith("A"):
        alpha = Image.new("L", (4, 2), 0)
        alpha.paste(255, (0, 0, 2, 2))
        black.putalpha(alpha)
        drawn = [0, 0, 0]
    else:
        options["transparency"] = (0, 0, 0) if mode == "RGB" else 0
        if mode == "P":
            black.putpalette([0, 0, 0, 50, 60, 70])
        drawn = [50, 60, 70] if mode in ("P", "RGB") else [50] * 3
        black.paste({"P": 1, "RGB": (50, 60, 70), "L": 50}[mode], (0, 0, 2, 2))
    image = read(saved(tmp_path / "a.png", black, **options), background=background)
    expected = {"white": [255] * 3, "black": [0] * 3, "#ff8000": [255, 128, 0]}[background]
    assert np.array(image)[0].tolist() == [drawn, drawn, expected, expected]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
def test_images_stand_upright_as_viewers_show_them(orientation, suffix, tmp_path):
    image = Image.fromarray(np.repeat(COLOUR, 4, axis=0).repeat(4, axis=1))
    if suffix == "tiff":
        options = {"tiffinfo": {ORIENTATION: orientation}}
    else:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options = {"exif": exif} | {"jpg": {"subsampling": 0}, "webp": {"lossless": True}}.get(
            suffix, {}
        )
    found = read(saved(tmp_path / f"a.{suffix}", image, **options))
    methods = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Pillow's Transpose for each tag
    wanted = image if orientation == 1 else image.transpose(Image.Transpose(methods[orientation]))
    assert found.size == wanted.size
    assert abs(np.array(found).astype(int) - np.array(wanted).astype(int)).mean() < 6
    assert ImageReader().convert(found) is found


def test_a_mask_with_an_orientation_or_transparent_pixels_is_refused(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    saved(tmp_path / "turned.png", RAMP, exif=exif)
    with pytest.raises(ImageError.__base__, match=r"turned\.png has an orientation tag"):
        read_mask(tmp_path / "turned.png")
    grey = Image.fromarray(RAMP).convert("RGBA")
    values, _ = read_mask(saved(tmp_path / "opaque.png", grey))
    assert torch.equal(values, torch.from_numpy(RAMP))
    grey.putalpha(100)
    with pytest.raises(ImageError.__base__, match=r"clear\.png is a mask with transparent pixels"):
        read_mask(saved(tmp_path / "clear.png", grey))


# ----------------------------------------------------------------------- what is not an image


@pytest.fixture
def postscript(tmp_path, monkeypatch):
    """An EPS file in a PNG file's clothes, and a Ghostscript that leaves a trace when it runs."""
    (tmp_path / "bin").mkdir()
    for name in ("gs", "gswin64c", "gswin32c", "gswin32"):
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\necho {tmp_path}\ntouch {tmp_path}/ran\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "x.png"
    path.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    )
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="the trap is a shell script")
def test_no_other_program_is_run_for_a_file(postscript, tmp_path):
    for use in (ImageReader().read, read_mask, lambda p: depth_note([p], ImageReader())):
        with pytest.raises(ImageError, match=r"x\.png cannot be read as .*it is none of PNG, JPEG"):
            use(postscript)
    assert not (tmp_path / "ran").exists()


def test_a_huge_image_in_a_small_file_is_refused_with_its_limit(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("1", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_999)
    with pytest.raises(ImageError, match=r"a\.png .*it has more than 9,998 pixels"):
        read(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "ppm", "tiff", "webp"])
def test_a_damaged_file_is_an_image_error_whatever_pillow_raises(suffix, tmp_path):
    path = saved(tmp_path / f"a.{suffix}", np.tile(COLOUR, (8, 8, 1)))
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for number in range(60):
        damaged = bytearray(content)
        for place in generator.integers(0, min(len(content), 200), 4):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged if number % 2 else damaged[: generator.integers(len(damaged))])
        try:
            read(path)
        except ImageError as error:
            assert f"a.{suffix}" in str(error)
            refused += 1
    assert refused > 10


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(ImageError, match=r"a\.png cannot be read as an image \(No such file"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_value": 0}, "max_value must be at least 1 or null, not 0"),
        ({"background": "mauve-ish"}, "background must be the name of a colour .* not 'mauve-ish'"),
    ],
)
def test_nonsense_is_refused_with_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        ImageReader(**options)


# ------------------------------------------------------------------------- notes and data sets


@pytest.mark.parametrize(("most", "usual"), [(1023, 1023), (1024, 4095), (4000, 4095)])
def test_a_smaller_white_is_suggested_where_16_bits_are_hardly_used(most, usual, tmp_path):
    paths = [saved(tmp_path / f"{i}.png", np.full((2, 2), most - i, np.uint16)) for i in range(3)]
    note = depth_note(paths, ImageReader())
    assert f"the largest value seen is {most:,}" in note and f"data.max_value={usual}" in note
    assert depth_note(paths, ImageReader(max_value=4095)) is None


def test_nothing_is_suggested_for_8_bits_or_a_bright_image(tmp_path):
    paths = [saved(tmp_path / "a.png", RAMP), saved(tmp_path / "b.tiff", RAMP / np.float32(255))]
    assert depth_note(paths, ImageReader()) is None
    bright = saved(tmp_path / "c.png", np.full((2, 2), 20_000, np.uint16))
    assert depth_note([*paths, bright], ImageReader()) is None


@pytest.mark.parametrize("in_memory", [True, False])
def test_training_and_prediction_see_the_same_of_every_kind(in_memory, tmp_path):
    """16 bits, transparency and orientation: what a folder of files gives is what predict gives."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    deep = (np.arange(64, dtype=np.uint16) * 60).reshape(8, 8)
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    kinds = {
        "clear": (clear, {}),
        "deep": (deep, {}),
        "turned": (np.tile(RAMP, (2, 2)), {"exif": exif}),
    }
    for split in ("train", "val"):
        for name, (pixels, options) in kinds.items():
            (tmp_path / split / name).mkdir(parents=True)
            saved(tmp_path / split / name / "a.png", pixels, **options)
    settings = {"image_size": 8, "num_workers": 0, "max_value": 4095, "background": "#808080"}
    data = ImageFolder(str(tmp_path), in_memory=in_memory, **settings)
    data.setup()
    ((images, labels),) = data.batches("val", 0)
    for image, label in zip(images, labels, strict=True):
        path = tmp_path / "val" / data.class_names[label] / "a.png"
        assert torch.equal(data.preprocess(data.reader.read(path)), image)
        with Image.open(path) as lazy:
            assert torch.equal(data.preprocess(lazy), image)
    levels = images * torch.tensor(data.normalize.std).view(3, 1, 1)
    levels = (levels + torch.tensor(data.normalize.mean).view(3, 1, 1)) * 255
    assert levels[labels == 0].round().unique().tolist() == [128]
    assert abs(levels[labels == 1].max() - 63 * 60 * 255 / 4095) < 1


def test_data_sets_without_files_of_their_own_read_every_kind_too():
    data = Digits(image_size=8)
    deep = Image.fromarray(np.full((8, 8), 65_535, np.uint16))
    assert torch.equal(data.preprocess(deep), data.preprocess(Image.new("L", (8, 8), 255)))


def test_an_image_with_an_orientation_lies_beneath_its_mask(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for split in ("train", "val"):
        for part in ("images", "masks"):
            (tmp_path / split / part).mkdir(parents=True)
        seen = np.zeros((8, 12), np.uint8)
        seen[:3, :5] = 255
        raw = Image.fromarray(np.rot90(seen).copy())
        saved(tmp_path / split / "images" / "a.png", raw, exif=exif)
        saved(tmp_path / split / "masks" / "a.png", seen)
    settings = {"mean": [0.0], "std": [1.0], "in_channels": 1, "tile_size": 8}
    data = MaskFolder(str(tmp_path), **settings)
    data.setup()
    ((image, mask),) = data.batches("val", 0)
    assert torch.equal(image[0, 0].round().long(), mask[0])
    saved(tmp_path / "val" / "masks" / "a.png", np.rot90(seen).copy())
    with pytest.raises(RuntimeError, match=r"a\.png has 8x12 pixels, but its image .*12x8"):
        MaskFolder(str(tmp_path), **settings).setup()


def test_bytes_of_a_name_that_are_not_utf8_are_shown_as_numbers():
    assert shown(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    assert shown("café.png") == "café.png"
