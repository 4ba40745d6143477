"""Sizes from the headers of images, and that nothing larger than the limit is decoded."""

import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest

from textscanner.data.image_files import IMAGE_SUFFIXES
from textscanner.data.image_header import MAX_PIXELS, MAX_SIDE_PX, image_size
from textscanner.data.images import decode
from textscanner.errors import UserError


def encoded(suffix, width=37, height=21, options=()):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    ok, data = cv2.imencode(suffix, pixels, list(options))
    assert ok
    return data.tobytes()


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_the_size_is_the_decoded_one(suffix):
    data = encoded(suffix)
    assert image_size(data) == (37, 21)
    assert decode(data, "").shape == (21, 37, 3)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),  # lossless
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 50)),
        (".tif", (cv2.IMWRITE_TIFF_COMPRESSION, 1)),
    ],
)
def test_variants_of_a_format_have_their_size(suffix, options):
    assert image_size(encoded(suffix, options=options)) == (37, 21)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_files_of_another_library_have_their_size(tmp_path, format_, mode):
    if (format_, mode) == ("JPEG", "P"):
        pytest.skip("JPEG has no palettes")
    exif = PIL.Image.Exif()
    exif[0x010E] = "a description \xff\xc0"
    path = tmp_path / "image"
    PIL.Image.new(mode, (300, 20)).save(path, format_, **({"exif": exif} if format_ in ("JPEG", "PNG", "WEBP") else {}))
    assert image_size(path.read_bytes()) == (300, 20)
    assert decode(path.read_bytes(), "").shape == (20, 300, 3)


def png_header(width, height):
    """A PNG of black pixels whose compressed content is a few bytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(32_000, 32_000), (MAX_SIDE_PX + 1, 1), (1, 2**31 - 1), (8193, 8193)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(UserError, match=rf"word\.png: the image has {size[0]:,} x {size[1]:,} pixels; at most"):
        decode(png_header(*size), "word.png")


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<2sIHHIIiiHH", b"BM", 0, 0, 0, 54, 40, 30_000, -30_000, 1, 24),
        b"GIF89a" + struct.pack("<HH", 65_535, 65_535),
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHII", 256, 4, 1, 10) + struct.pack("<HHII", 257, 4, 1, 2**32 - 1),
        # The image is small, its tile is not.
        b"MM\0*\0\0\0\x08\0\4"
        + b"".join(
            struct.pack(">HHII", tag, 4, 1, side) for tag, side in ((256, 9), (257, 9), (322, 2**30), (323, 16))
        ),
        b"\xff\xd8\xff\xe0\0\x04ab junk \xff\xff\xff\xc2\0\x11\x08\xff\xff\xff\xff",
    ],
)
def test_other_formats_are_bounded_too(data):
    with pytest.raises(UserError, match="pixels; at most"):
        decode(data, "word")


def with_width_of_type(type_, data):
    """A TIFF with its width as the last entry, of another type: a value of eight bytes is stored at the file's end."""
    width, _ = image_size(data)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    others = [entry for entry in entries if struct.unpack_from("<H", entry)[0] != 256]
    is_wide = type_ in (16, 17)
    value = struct.pack("<I", len(data) if is_wide else width)
    last = struct.pack("<HHI", 256, type_, 1) + value
    patched = data[: start + 2] + b"".join([*others, last]) + data[start + 2 + 12 * count :]
    return patched + (struct.pack("<Q", width) if is_wide else b"")


def test_the_width_of_a_tiff_may_be_stored_beside_its_entry(monkeypatch):
    """The entry holds the value's offset: taken for the width, it would pass the limit."""
    data = with_width_of_type(16, encoded(".tif"))
    assert image_size(data) == (37, 21)
    assert decode(data, "").shape == (21, 37, 3)
    ok, wide = cv2.imencode(".tif", np.zeros((1, MAX_SIDE_PX + 1, 3), np.uint8))
    assert ok
    bomb = with_width_of_type(16, wide.tobytes())
    assert len(bomb) < MAX_SIDE_PX
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(UserError, match=r"the image has 32,768 x 1 pixels; at most"):
        decode(bomb, "word.tif")


@pytest.mark.parametrize("type_", [2, 5, 6, 7, 8, 9, 13, 17])
def test_a_tiff_whose_width_has_another_type_is_refused(type_):
    assert image_size(with_width_of_type(4, encoded(".tif"))) == (37, 21)
    assert image_size(with_width_of_type(type_, encoded(".tif"))) is None


def test_the_limit_itself_is_decoded():
    assert MAX_PIXELS == 8192 * 8192
    image = decode(encoded(".png", MAX_SIDE_PX, 2), "")
    assert image.shape == (2, MAX_SIDE_PX, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"P6 2 2 255 0123456789ab",
        b"#?RADIANCE\n",
        b"II*\0\xff\xff\xff\xff",
        b"II+\0\x08\0\0\0" + b"\xff" * 8,
        b"\xff\xd8\xff",
    ],
)
def test_other_formats_are_not_images(data):
    with pytest.raises(UserError, match="word: not a JPEG, PNG, WebP, BMP, TIFF or GIF image"):
        decode(data, "word")
