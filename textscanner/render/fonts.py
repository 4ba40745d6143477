"""Fonts for the renderer: discovery, checks, and the split into training and held-out families.

A font file is usable if it opens, has a glyph for every letter and digit, and its letters are neither blank nor all
alike nor pictures (symbol fonts map letters to pictures, placeholder fonts draw one box). Files that draw the same
shapes count once: some packages hold one font under two hundred names. A hash of the family name decides whether a
family is used for training or held out, so that a model can be tested on letter shapes it was not trained on.
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

from textscanner.errors import UserError, install_command

# Python packages that contain font files. Packages that are not installed are skipped.
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
FONT_SUFFIXES = (".ttf", ".otf")
LETTERS_AND_DIGITS = string.digits + string.ascii_letters
GLYPH_PX = 64  # em size at which words are laid out
CHECK_PX = 20  # em size at which fonts are checked
MIN_SIMILARITY = 0.2  # symbol fonts reach 0.17, the wildest scripts that are still legible 0.2 and more
SCRIPT_SAMPLE = "nummernur"  # separate letters in print: 9 connected shapes; in script 1 or 2
MAX_SCRIPT_SHAPES = 4
MIN_DISTINCT = 0.55  # of letters and digits: fonts of capitals draw `a` and `A` alike
HELDOUT_FAMILIES_PERCENT = 15
HELDOUT_WORDS_PERCENT = 10


@dataclasses.dataclass(frozen=True)
class Font:
    """A usable face.

    Attributes:
      path: the font file.
      family: name of the family.
      style: name of the face within the family.
      is_script: letters join to a line, as in handwriting.
    """

    path: str
    family: str
    style: str
    is_script: bool = False

    @property
    def heldout(self) -> bool:
        """Whether the family is held out from training."""
        return _hash_percent(self.family.lower()) < HELDOUT_FAMILIES_PERCENT


def find_fonts(extra_folders: Iterable[str] = (), packages: Iterable[str] = FONT_PACKAGES) -> tuple[Font, ...]:
    """Finds every usable face in the extra folders, the Python packages and the system's font folders.

    Returns:
      Faces sorted by name, without those that draw the same shapes as another.

    Raises:
      UserError: an extra folder does not exist, or there is no usable font.
    """
    for folder in extra_folders:
        if not pathlib.Path(folder).is_dir():
            raise UserError(f"fonts is {folder!r}: no such folder")
    folders = [*extra_folders, *_package_folders(packages), *SYSTEM_FOLDERS]
    by_shape: dict[str, Font] = {}
    for path in _font_files(folders):
        shape = _shape_hash(path)
        if shape and shape not in by_shape:
            family, style = ImageFont.truetype(path, CHECK_PX).getname()
            by_shape[shape] = Font(path, family or pathlib.Path(path).stem, style or "Regular", _is_script(path))
    if not by_shape:
        raise UserError(
            f"no usable font: {install_command('render')}, or set fonts to a folder with .ttf or .otf files"
        )
    return tuple(sorted(by_shape.values(), key=lambda font: (font.family, font.style, pathlib.Path(font.path).name)))


def select(fonts: Iterable[Font], split: str) -> tuple[Font, ...]:
    """The fonts of a split: `train`, `heldout` or `all`.

    Raises:
      UserError: no font belongs to the split.
    """
    chosen = tuple(f for f in fonts if split == "all" or f.heldout == (split == "heldout"))
    if not chosen:
        raise UserError(f"split is {split!r}: no font family belongs to it; add fonts: {install_command('render')}")
    return chosen


def covers(path: str, text: str) -> bool:
    """Whether the font draws every character of the text with a glyph of its own."""
    return all(_draws(path, character) for character in set(text))


@functools.lru_cache(maxsize=200_000)
def _draws(path: str, character: str) -> bool:
    try:
        own = glyph(path, character).coverage
        # NUL may have a blank glyph of its own; the noncharacter shows what the font draws for characters it lacks.
        missing = [glyph(path, absent).coverage for absent in ("\N{NULL}", "\U0010ffff")]
    except OSError:  # FreeType fails on some glyphs of damaged fonts
        return False
    return own.size > 0 and not any(np.array_equal(own, shape) for shape in missing)


def _package_folders(packages: Iterable[str]) -> Iterator[str]:
    for name in packages:
        spec = importlib.util.find_spec(name)
        yield from (spec.submodule_search_locations or ()) if spec else ()


def _font_files(folders: Iterable[str]) -> list[str]:
    files: dict[str, None] = {}
    for folder in folders:
        root = pathlib.Path(folder).expanduser()
        paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in FONT_SUFFIXES) if root.is_dir() else []
        files.update(dict.fromkeys(str(p) for p in paths))
    return list(files)


@functools.lru_cache(maxsize=4096)
def _shape_hash(path: str) -> str | None:
    """A hash of the shapes of letters and digits, or None if the font is not usable."""
    try:
        font = ImageFont.truetype(path, CHECK_PX)
        shapes = [_mask(font, c) for c in LETTERS_AND_DIGITS]
        missing = _mask(font, "\N{NULL}")
    except (OSError, ValueError, UnicodeError):
        return None
    blank_or_missing = any(not any(shape[1]) or shape == missing for shape in shapes)
    if blank_or_missing or len(set(shapes)) < MIN_DISTINCT * len(LETTERS_AND_DIGITS):
        return None
    if _similarity(shapes) < MIN_SIMILARITY:
        return None
    digest = hashlib.sha256()
    for size, data in shapes:
        digest.update(repr(size).encode() + data)
    return digest.hexdigest()


def _is_script(path: str) -> bool:
    """Whether the letters of a word touch each other."""
    try:
        (width, height), data = _mask(ImageFont.truetype(path, GLYPH_PX), SCRIPT_SAMPLE)
    except OSError:  # FreeType fails on some sizes of damaged fonts
        return False
    ink = (np.frombuffer(data, np.uint8).reshape(height, width) > 100).astype(np.uint8)
    num_shapes = cv2.connectedComponents(ink)[0] - 1
    return bool(num_shapes <= MAX_SCRIPT_SHAPES)


def _similarity(shapes: list[tuple[tuple[int, int], bytes]]) -> float:
    """Similarity to a plain sans serif: the median correlation of thumbnails of the same letter, -1 to 1."""
    return float(np.median((_thumbnails(shapes) * _reference_thumbnails()).mean((1, 2))))


@functools.lru_cache(maxsize=1)
def _reference_thumbnails() -> np.ndarray:
    import matplotlib

    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", CHECK_PX)
    return _thumbnails([_mask(font, c) for c in LETTERS_AND_DIGITS])


def _thumbnails(shapes: list[tuple[tuple[int, int], bytes]]) -> np.ndarray:
    """Each glyph's ink box scaled to 12 x 12, with mean 0 and standard deviation 1: float [glyphs, 12, 12]."""
    thumbnails = []
    for (width, height), data in shapes:
        mask = _trim(np.frombuffer(data, np.uint8).reshape(height, width))[0]
        small = cv2.GaussianBlur(cv2.resize(mask, (12, 12), interpolation=cv2.INTER_AREA).astype(np.float64), (0, 0), 1)
        thumbnails.append((small - small.mean()) / (small.std() + 1e-6))
    return np.stack(thumbnails)


def _trim(mask: np.ndarray) -> tuple[np.ndarray, int, int]:
    """The bounding box of a mask's ink, and how many columns and rows lie before it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask[:0, :0], 0, 0
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], int(columns[0]), int(rows[0])


def _mask(font: ImageFont.FreeTypeFont, text: str) -> tuple[tuple[int, int], bytes]:
    """Width and height in pixels, and the coverage, one byte per pixel."""
    mask = font.getmask(text, mode="L")
    return mask.size, bytes(mask)


@functools.lru_cache(maxsize=1024)
def _load(path: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, GLYPH_PX)


@dataclasses.dataclass(frozen=True, eq=False)
class Glyph:
    """A rasterized character.

    Attributes:
      coverage: uint8 [h, w], cut to the ink.
      left_px: columns from the pen to the ink.
      top_px: rows from the baseline to the ink, negative above it.
      advance_px: how far the pen moves.
    """

    coverage: np.ndarray
    left_px: int
    top_px: int
    advance_px: float


@functools.lru_cache(maxsize=40_000)
def glyph(path: str, character: str) -> Glyph:
    """The glyph of a character at GLYPH_PX."""
    font = _load(path)
    mask, (left, top) = font.getmask2(character, mode="L", anchor="ls")
    width, height = mask.size
    coverage, cut_left, cut_top = _trim(np.frombuffer(bytes(mask), np.uint8).reshape(height, width))
    return Glyph(coverage, left + cut_left, top + cut_top, font.getlength(character))


def in_heldout_words(word: str, percent: int = HELDOUT_WORDS_PERCENT) -> bool:
    """Whether a word is held out from training, whatever its case."""
    return _hash_percent("word:" + word.lower()) < percent


def _hash_percent(text: str) -> int:
    """A number in 0..99 that depends on nothing but the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100
