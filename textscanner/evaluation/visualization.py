"""Images of maps and readings. Pure functions on NumPy arrays; results are uint8 RGB [H, W, 3].

Text is drawn with Pillow and the DejaVu font of matplotlib, because OpenCV's own letters are hard to read.

Shapes: B batch, H W pixels, h w map cells, C classes.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from textscanner.charset import Charset
from textscanner.data.images import decode
from textscanner.data.schema import WordRecord
from textscanner.inference.postprocess import Reading
from textscanner.text import normalize_for_scoring

if TYPE_CHECKING:  # importing it loads TensorFlow
    from textscanner.inference.reader import Maps

PANEL_PX = 256  # width of a panel, and of a word in a grid
GAP_PX = 8
CAPTION_PX = 26
WHITE, BLACK, GREEN, RED, GREY = (255, 255, 255), (30, 30, 30), (20, 130, 60), (200, 40, 40), (120, 120, 120)
MIN_LOCALIZATION = 0.3  # cells below it get no letter on the character map
COLOURS = 200  # of positions: the longest word
OVERLAY_HEIGHT_PX = 240
SAMPLE_HEIGHT_PX = 96
TILE_HEIGHT_PX = 64  # of a word in a sheet


def draw_maps(maps: Maps, truths: Sequence[str], readings: Sequence[Reading], charset: Charset) -> np.ndarray:
    """One row per word: input, localization, order and character map side by side, label and reading above.

    Args:
      maps: of B words.
      truths: their B labels.
      readings: their B readings.
      charset: the network's characters.
    """
    rows = [_map_row(maps, i, truths[i], readings[i], charset) for i in range(len(truths))]
    titles = ("input", "localization Q", "order S", "characters G")
    header = Image.fromarray(np.full((CAPTION_PX, rows[0].shape[1], 3), 255, np.uint8))
    pen = ImageDraw.Draw(header)
    for i, title in enumerate(titles):
        pen.text((GAP_PX + i * (PANEL_PX + GAP_PX), 4), title, fill=GREY, font=_font(14))
    return np.vstack([np.asarray(header), *rows])


def overlay(image: np.ndarray, reading: Reading) -> np.ndarray:
    """Draws a reading over its image: numbered character centres joined in reading order, the text below.

    Args:
      image: uint8 RGB [H, W, 3].
      reading: of this image.
    """
    scale = OVERLAY_HEIGHT_PX / image.shape[0]
    width = max(round(image.shape[1] * scale), 1)
    enlarged = cv2.resize(image, (width, OVERLAY_HEIGHT_PX), interpolation=cv2.INTER_CUBIC)
    canvas = Image.new("RGB", (max(width, 320), OVERLAY_HEIGHT_PX + 76), WHITE)
    canvas.paste(Image.fromarray(enlarged), (0, 0))
    pen = ImageDraw.Draw(canvas)
    centres = [(c.x_px * scale, c.y_px * scale) for c in reading.characters]
    if len(centres) > 1:
        pen.line(centres, fill=BLACK, width=5)
        pen.line(centres, fill=WHITE, width=2)
    for k, ((x, y), character) in enumerate(zip(centres, reading.characters, strict=True)):
        colour = _position_colour(k + 1)
        pen.ellipse((x - 15, y - 15, x + 15, y + 15), fill=colour, outline=WHITE, width=2)
        pen.text((x, y), str(k + 1), fill=WHITE, font=_font(17), anchor="mm")
        pen.text((x, OVERLAY_HEIGHT_PX + 18), character.text, fill=colour, font=_font(24), anchor="mm")
    caption = f"{reading.text or 'nothing read'}   {reading.confidence:.0%}"
    pen.text((8, OVERLAY_HEIGHT_PX + 40), caption, fill=BLACK, font=_font(24))
    return np.asarray(canvas)


def sheet(
    images: Sequence[np.ndarray], truths: Sequence[str], readings: Sequence[Reading], columns: int = 4
) -> np.ndarray:
    """Word images in a grid, with their readings and the labels of those read wrong; errors come first.

    Args:
      images: uint8 RGB [H, W, 3] of any size.
      truths: their labels.
      readings: their readings.
      columns: of the grid.
    """
    order = sorted(range(len(images)), key=lambda i: _is_correct(truths[i], readings[i].text))
    return _grid([_tile(images[i], truths[i], readings[i].text, readings[i].confidence) for i in order], columns)


def mistakes_sheet(mistakes: Sequence[tuple[bytes, str, str, float]], columns: int = 5) -> np.ndarray:
    """(encoded image, label, reading, confidence in 0..1) rows in a grid, in order; a broken image is drawn grey."""
    tiles = []
    for data, truth, text, confidence in mistakes:
        try:
            image = decode(data, truth)
        except ValueError:  # decode: not an image
            image = np.full((TILE_HEIGHT_PX, 128, 3), GREY, np.uint8)
        tiles.append(_tile(image, truth, text, confidence))
    return _grid(tiles, columns)


def labelled_words(records: Sequence[WordRecord], columns: int = 4) -> np.ndarray:
    """Words in a grid with their character quads, one colour per position, and their text below."""
    return _grid([_draw_quads(record) for record in records], columns)


def encode_png(image: np.ndarray) -> bytes:
    """Encodes an RGB image, uint8 [H, W, 3], as PNG."""
    ok, data = cv2.imencode(".png", image[..., ::-1])
    assert ok
    return data.tobytes()


def _draw_quads(record: WordRecord) -> np.ndarray:
    """One word for `labelled_words`, all of the same size."""
    image = decode(record.image, record.source)
    scale = min(SAMPLE_HEIGHT_PX / image.shape[0], PANEL_PX / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    canvas = Image.new("RGB", (PANEL_PX + GAP_PX, SAMPLE_HEIGHT_PX + 2 * CAPTION_PX), WHITE)
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    canvas.paste(Image.fromarray(resized), (GAP_PX // 2, 4))
    pen = ImageDraw.Draw(canvas)
    for k, quad in enumerate([] if record.quads is None else record.quads):
        corners = [(float(x * scale) + GAP_PX // 2, float(y * scale) + 4) for x, y in quad]
        pen.polygon(corners, outline=_position_colour(k + 1), width=2)
        pen.text(corners[3], record.text[k], fill=_position_colour(k + 1), font=_font(15), anchor="lt")
    caption = record.text if record.quads is not None else f"{record.text}   (no quads)"
    pen.text((GAP_PX // 2, SAMPLE_HEIGHT_PX + CAPTION_PX), caption, fill=BLACK, font=_font(15))
    return np.asarray(canvas)


def _grid(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    """Tiles [h, w, 3] of one size, row by row; white where the last row is incomplete."""
    tiles = tiles + [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def _tile(image: np.ndarray, truth: str, text: str, confidence: float) -> np.ndarray:
    """A word image [H, W, 3] with its reading, in a tile of fixed size."""
    canvas = Image.new("RGB", (PANEL_PX + GAP_PX, TILE_HEIGHT_PX + 2 * CAPTION_PX), WHITE)
    width = min(PANEL_PX, max(8, round(image.shape[1] * TILE_HEIGHT_PX / image.shape[0])))
    resized = cv2.resize(image, (width, TILE_HEIGHT_PX), interpolation=cv2.INTER_AREA)
    canvas.paste(Image.fromarray(resized), (GAP_PX // 2, 4))
    is_correct = _is_correct(truth, text)
    caption = f"{text or '-'}  {confidence:.0%}" + ("" if is_correct else f"   label {truth}")
    position = (GAP_PX // 2, TILE_HEIGHT_PX + 8)
    ImageDraw.Draw(canvas).text(position, caption, fill=GREEN if is_correct else RED, font=_font(15))
    return np.asarray(canvas)


def _is_correct(truth: str, text: str) -> bool:
    return normalize_for_scoring(truth) == normalize_for_scoring(text)


def _map_row(maps: Maps, i: int, truth: str, reading: Reading, charset: Charset) -> np.ndarray:
    """The four panels of word i with their caption."""
    localization = maps.localization[i]  # [h, w]
    order_colours = np.array([(0, 0, 0), *(_position_colour(k) for k in range(1, COLOURS + 1))], np.uint8)
    # Class colours fade to black where the network sees no character.
    brightness = np.clip(localization * 1.4, 0, 1)[..., None]
    panels = [
        maps.image[i],
        cv2.applyColorMap((np.clip(localization, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1],
        order_colours[maps.order[i]],
        (_class_colours(charset.num_classes)[maps.classes[i]] * brightness).astype(np.uint8),
    ]
    height = round(PANEL_PX * maps.image.shape[1] / maps.image.shape[2])
    resized = [cv2.resize(np.ascontiguousarray(p), (PANEL_PX, height), interpolation=cv2.INTER_NEAREST) for p in panels]
    resized[3] = _draw_letters(resized[3], maps, i, charset)
    canvas = Image.new("RGB", (GAP_PX + 4 * (PANEL_PX + GAP_PX), height + CAPTION_PX + GAP_PX), WHITE)
    for k, panel in enumerate(resized):
        canvas.paste(Image.fromarray(panel), (GAP_PX + k * (PANEL_PX + GAP_PX), CAPTION_PX))
    pen = ImageDraw.Draw(canvas)
    pen.text((GAP_PX, 4), f"label {truth}", fill=BLACK, font=_font(15))
    caption = f"read {reading.text or '-'}   {reading.confidence:.0%}"
    colour = GREEN if _is_correct(truth, reading.text) else RED
    pen.text((2 * GAP_PX + PANEL_PX, 4), caption, fill=colour, font=_font(15))
    return np.asarray(canvas)


def _draw_letters(panel: np.ndarray, maps: Maps, i: int, charset: Charset) -> np.ndarray:
    """Writes the most frequent class of each position on the character panel, uint8 [H, W, 3], at its mean cell."""
    height, width = panel.shape[:2]
    scale = np.array([width / maps.classes.shape[2], height / maps.classes.shape[1]])
    canvas = Image.fromarray(panel)
    pen = ImageDraw.Draw(canvas)
    visible = (maps.localization[i] > MIN_LOCALIZATION) & (maps.order[i] > 0)
    for k in np.unique(maps.order[i][visible]):
        rows, columns = np.nonzero(visible & (maps.order[i] == k))
        ids = maps.classes[i][rows, columns]
        letter = charset.decode(np.array([np.bincount(ids).argmax()]))
        centre = (np.array([columns.mean(), rows.mean()]) + 0.5) * scale
        pen.text(tuple(centre), letter, fill=WHITE, font=_font(17), anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(canvas)


@functools.lru_cache(maxsize=512)
def _position_colour(k: int) -> tuple[int, int, int]:
    """The RGB colour of position k. Steps of the golden angle keep neighbours far apart on the colour wheel."""
    red, green, blue = colorsys.hsv_to_rgb((k * 0.381966) % 1.0, 0.75, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def _class_colours(num_classes: int) -> np.ndarray:
    """RGB colours float32 [C, 3]; background is black."""
    return np.array([(0, 0, 0), *(_position_colour(3 * c + 1) for c in range(1, num_classes))], np.float32)


@functools.lru_cache(maxsize=16)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size_px)
