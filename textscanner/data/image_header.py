"""Width and height of an encoded image, read from its header without decoding.

A PNG of 3 MB can hold 32,000 x 32,000 pixels, which a decoder allocates before it notices anything. The header is
parsed here as the decoders do it, for the formats of `IMAGE_SUFFIXES`; anything else is not an image.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAX_PIXELS = 1 << 26  # 67 megapixels, 200 MB decoded; photographs of telephones have 12 to 50
MAX_SIDE_PX = (1 << 15) - 1  # OpenCV warps no longer ones

Size = tuple[int, int]
"""Width and height in pixels."""

# JPEG markers: frame headers, and those without parameters.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA

_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 256, 257, 322, 323
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_TIFF_LONG8 = 16
_TIFF_MAX_ENTRIES = 4096


def image_size(data: bytes) -> Size | None:
    """The size of an encoded image; the larger one if its header states several, None if there is none."""
    try:
        return _size(data)
    except (struct.error, IndexError, OverflowError):  # the header is truncated, or an offset in it impossible
        return None


def _size(data: bytes) -> Size | None:
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return struct.unpack_from(">II", data, 16) if data[12:16] == b"IHDR" else None
    if data.startswith((b"GIF87a", b"GIF89a")):
        return struct.unpack_from("<HH", data, 6)
    if data.startswith(b"BM"):
        return _bmp_size(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_size(data)
    if data.startswith((b"II", b"MM")):
        return _tiff_size(data)
    return None


def _jpeg_size(data: bytes) -> Size | None:
    """Finds markers as libjpeg does, which skips anything between segments; the first frame header counts."""
    position = 2
    while (position := data.find(b"\xff", position)) >= 0:
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 3)
            return width, height
        if marker in (_JPEG_SCAN, _JPEG_END):
            return None
        if marker and marker not in _JPEG_STANDALONE:
            (length,) = struct.unpack_from(">H", data, position)
            position += length
    return None


def _bmp_size(data: bytes) -> Size | None:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes == 12:
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # negative: rows from the top down


def _webp_size(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes) -> Size | None:
    """Of the first page; a decoder allocates whole tiles, so larger ones count.

    A side of another type than the unsigned ones is refused: decoders accept some of them, and no writer uses them.
    """
    order = "<" if data.startswith(b"II") else ">"
    sides = {_TIFF_WIDTH: 0, _TIFF_HEIGHT: 0, _TIFF_TILE_WIDTH: 0, _TIFF_TILE_HEIGHT: 0}
    for tag, type_, offset in _tiff_entries(data, order):
        if tag not in sides:
            continue
        if type_ not in _TIFF_TYPES:
            return None
        (value,) = struct.unpack_from(f"{order}{_TIFF_TYPES[type_]}", data, offset)
        sides[tag] = max(sides[tag], value)
    return max(sides[_TIFF_WIDTH], sides[_TIFF_TILE_WIDTH]), max(sides[_TIFF_HEIGHT], sides[_TIFF_TILE_HEIGHT])


def _tiff_entries(data: bytes, order: str) -> Iterator[tuple[int, int, int]]:
    """Tag, type and offset of the value of each entry of the first directory, if the value is one number."""
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    if version == 42:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        first, entry_bytes, value_offset = start + 2, 12, 8
    elif version == 43:  # BigTIFF, with wider fields
        (start,) = struct.unpack_from(f"{order}Q", data, 8)
        (count,) = struct.unpack_from(f"{order}Q", data, start)
        first, entry_bytes, value_offset = start + 8, 20, 12
    else:
        return
    for i in range(min(count, _TIFF_MAX_ENTRIES)):
        entry = first + i * entry_bytes
        tag, type_ = struct.unpack_from(f"{order}HH", data, entry)
        offset = entry + value_offset
        if version == 42 and type_ == _TIFF_LONG8:  # does not fit into the entry, which holds the value's offset
            (offset,) = struct.unpack_from(f"{order}I", data, offset)
        yield tag, type_, offset
