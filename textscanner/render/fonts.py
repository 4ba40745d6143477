"""Fonts: found, checked and told apart.

A font file counts when it opens, has a glyph for every character that will be drawn, and its letters are neither blank
nor all alike (symbol fonts map letters to pictures; placeholder fonts draw one box). Files that draw the same shapes
are one font: packages are known that hold one font under two hundred names. Families are split by a hash of their name
into training and held-out ones, so that a model can be tested on letters that it has never seen.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import pathlib
import string
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from PIL import ImageFont

# Packages that bring fonts as files; those that are not installed are passed over.
FONT_PACKAGES = (
    "matplotlib",
    "deckr_fonts",
    "common_fonts",
    "font_amatic_sc",
    "font_lato",
    "font_rhd",
    "font_caladea",
    "font_fredoka_one",
    "font_hanken_grotesk",
    "font_intuitive",
    "font_manrope",
    "font_roboto",
    "font_source_sans_pro",
    "font_source_serif_pro",
    "sphinx_rtd_theme",
    "reportlab",
)
SYSTEM_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.fonts",
    "~/.local/share/fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
)
SUFFIXES = (".ttf", ".otf")
LETTERS_AND_DIGITS = string.digits + string.ascii_letters
GLYPH_PX = 64
CHECK_PX = 20
MIN_LIKENESS = 0.2  # symbol fonts reach 0.17, the wildest scripts that are still legible 0.2 and more
HELDOUT_PERCENT = 15


@dataclasses.dataclass(frozen=True)
class Font:
    """A face that passed the checks."""

    path: str
    family: str
    style: str

    @property
    def heldout(self) -> bool:
        """Whether the family belongs to the held-out part."""
        return _percent(self.family.lower()) < HELDOUT_PERCENT


def find_fonts(extra_folders: Iterable[str] = (), packages: Iterable[str] = FONT_PACKAGES) -> tuple[Font, ...]:
    """Every usable face of the packages, the system and the given folders, each shape once, ordered by name.

    Raises:
      ValueError: an extra folder is missing, or no font can be used.
    """
    for folder in extra_folders:
        if not pathlib.Path(folder).is_dir():
            raise ValueError(f"--fonts is {folder!r}: no such folder")
    folders = [*extra_folders, *_package_folders(packages), *SYSTEM_FOLDERS]
    seen: dict[str, Font] = {}
    for path in _font_files(folders):
        shape = _shape_hash(path)
        if shape and shape not in seen:
            family, style = ImageFont.truetype(path, CHECK_PX).getname()
            seen[shape] = Font(path, family or pathlib.Path(path).stem, style or "Regular")
    if not seen:
        raise ValueError("no usable font found: install a font package, or give --fonts DIR with .ttf or .otf files")
    return tuple(sorted(seen.values(), key=lambda font: (font.family, font.style, pathlib.Path(font.path).name)))


def select(fonts: Iterable[Font], split: str) -> tuple[Font, ...]:
    """The fonts of a split: `train`, `heldout` or `all`.

    Raises:
      ValueError: none is left.
    """
    chosen = tuple(f for f in fonts if split == "all" or f.heldout == (split == "heldout"))
    if not chosen:
        raise ValueError(f"--split is {split!r}: no font family falls into it; add fonts with --fonts DIR")
    return chosen


def covers(path: str, text: str) -> bool:
    """Whether the font draws every character of the text with a glyph of its own."""
    return all(_draws(path, character) for character in set(text))


@functools.lru_cache(maxsize=200_000)
def _draws(path: str, character: str) -> bool:
    try:
        own, missing = glyph(path, character).coverage, glyph(path, "\N{NULL}").coverage
    except OSError:  # FreeType cannot draw it
        return False
    return own.size > 0 and not np.array_equal(own, missing)


def _package_folders(packages: Iterable[str]) -> Iterator[str]:
    for name in packages:
        spec = importlib.util.find_spec(name)
        yield from (spec.submodule_search_locations or ()) if spec else ()


def _font_files(folders: Iterable[str]) -> list[str]:
    files: dict[str, None] = {}
    for folder in folders:
        root = pathlib.Path(folder).expanduser()
        found = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES) if root.is_dir() else []
        files.update(dict.fromkeys(str(p) for p in found))
    return list(files)


@functools.lru_cache(maxsize=4096)
def _shape_hash(path: str) -> str | None:
    """A hash of the letters' shapes; None where the font cannot be used."""
    try:
        font = ImageFont.truetype(path, CHECK_PX)
        shapes = [_mask(font, c) for c in LETTERS_AND_DIGITS]
        missing = _mask(font, "\N{NULL}")
    except (OSError, ValueError, UnicodeError):
        return None
    blank_or_missing = any(not any(shape[1]) or shape == missing for shape in shapes)
    if blank_or_missing or len(set(shapes)) < len(LETTERS_AND_DIGITS) * 0.55:
        return None
    if _likeness(shapes) < MIN_LIKENESS:
        return None
    digest = hashlib.sha256()
    for size, data in shapes:
        digest.update(repr(size).encode() + data)
    return digest.hexdigest()


def _likeness(shapes: list[tuple[tuple[int, int], bytes]]) -> float:
    """How much the letters look like those of a plain sans serif: the median correlation of their pictures, -1..1."""
    return float(np.median((_pictures(shapes) * _reference_pictures()).mean((1, 2))))


@functools.lru_cache(maxsize=1)
def _reference_pictures() -> np.ndarray:
    import matplotlib

    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", CHECK_PX)
    return _pictures([_mask(font, c) for c in LETTERS_AND_DIGITS])


def _pictures(shapes: list[tuple[tuple[int, int], bytes]]) -> np.ndarray:
    """Each glyph's ink box as a 12 x 12 picture of mean 0 and deviation 1, float [glyphs, 12, 12]."""
    pictures = []
    for (width, height), data in shapes:
        mask = _trim(np.frombuffer(data, np.uint8).reshape(height, width))[0]
        small = cv2.GaussianBlur(cv2.resize(mask, (12, 12), interpolation=cv2.INTER_AREA).astype(np.float64), (0, 0), 1)
        pictures.append((small - small.mean()) / (small.std() + 1e-6))
    return np.stack(pictures)


def _trim(mask: np.ndarray) -> tuple[np.ndarray, int, int]:
    """The part of a mask that has ink, and how many columns and rows were cut before it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask[:0, :0], 0, 0
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], int(columns[0]), int(rows[0])


def _mask(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character, mode="L")
    return mask.size, bytes(mask)


@functools.lru_cache(maxsize=1024)
def _load(path: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, GLYPH_PX)


@dataclasses.dataclass(frozen=True, eq=False)
class Glyph:
    """A drawn character: coverage uint8 [h, w] and its place against the pen on the baseline, in pixels."""

    coverage: np.ndarray
    left_px: int
    top_px: int
    advance_px: float


@functools.lru_cache(maxsize=40_000)
def glyph(path: str, character: str) -> Glyph:
    """The glyph at GLYPH_PX."""
    font = _load(path)
    mask, (left, top) = font.getmask2(character, mode="L", anchor="ls")
    width, height = mask.size
    coverage, cut_left, cut_top = _trim(np.frombuffer(bytes(mask), np.uint8).reshape(height, width))
    return Glyph(coverage, left + cut_left, top + cut_top, font.getlength(character))


def _percent(text: str) -> int:
    """A number in 0..99 that depends on nothing but the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100


def in_heldout_words(word: str, percent: int = 10) -> bool:
    """Whether a word belongs to the held-out part of the dictionary, whatever its case."""
    return _percent("word:" + word.lower()) < percent
