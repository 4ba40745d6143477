"""Random variants of word images for training. Character quads follow the pixels exactly.

Every effect is relative to the height of the text in the network's input: the image is scaled to that height first, so
that blur and noise are as strong on tall crops as on low ones, and cost no more. Rotation, perspective, letter width,
crop margins and scaling are one matrix and one resampling of the pixels.

`H W` are the rows and columns of an image; coordinates count from the image's edge, so that the centre of the first
pixel is at 0.5. Images are uint8 throughout.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import cv2
import numpy as np

from textscanner.config import ModelConfig

NOISE_SHAPE = (128, 1024, 3)
NOISE_DEVIATION = 32.0  # of the stored noise, whose mean is 128
NUM_DRAWS = 64  # random numbers per image, more than the effects need together


def augment(
    image: np.ndarray,
    quads: np.ndarray | None,
    model: ModelConfig,
    rng: np.random.Generator,
    strength: float = 1.0,
) -> tuple[np.ndarray, np.ndarray | None]:
    """A random variant of a word image, at about the network's scale.

    Geometry: letter width, rotation up to 15 degrees, shear and perspective, curvature, crop margins from cutting into
    the word to 20 % of its height. Then colours (inversion, brightness, contrast, colour cast), resolution (8 to 16
    rows, defocus, motion blur or sharpening), noise and JPEG compression; each with its own probability.

    Args:
      image: uint8 [H, W, 3].
      quads: float32 [n, 4, 2] in pixels of the image, or None.
      model: the network whose input the variant is for.
      rng: generator of the row. The same state gives the same pixels, with quads or without.
      strength: scales the range of every effect; below 1 also its probability. 0 only scales the image.

    Returns:
      The variant, uint8 [model.height_px, W', 3] with W' at most model.width_px, and the quads in its pixels (None
      stays None).
    """
    draws = _Draws(rng)
    geometry = _random_geometry(image.shape[0], image.shape[1], model, draws, strength)
    image = geometry.warp_image(image)
    if quads is not None:
        quads = geometry.warp_points(quads)
    image = _recolour(image, draws, strength)
    image = _reduce_resolution(image, geometry.text_px, draws, strength)
    if draws.chance(0.25, strength):
        image = _add_noise(image, draws, draws.between(3.0, 15.0) * strength)
    if draws.chance(0.15, strength):
        image = _compress(image, int(draws.between(20, 70)))
    return image, quads


class _Draws:
    """Uniform random numbers of one image, drawn at once: single draws from a generator take microseconds each."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._values = iter(rng.random(NUM_DRAWS).tolist())

    def between(self, low: float, high: float) -> float:
        return float(low + (high - low) * next(self._values))

    def chance(self, probability: float, strength: float = 1.0) -> bool:
        """True with this probability, or less if the strength is below 1."""
        return bool(next(self._values) < probability * min(1.0, strength))


@dataclasses.dataclass(frozen=True)
class _Curve:
    """Moves columns up or down: an arc, or a wave.

    Attributes:
      amplitude_px: largest shift.
      width_px: width of the image.
      phase: None for an arc, 0 to 1 for where a wave begins.
    """

    amplitude_px: float
    width_px: int
    phase: float | None

    def offset(self, x: np.ndarray) -> np.ndarray:
        """How far the columns x move down, in pixels, same shape."""
        u = x / self.width_px
        if self.phase is None:
            return np.asarray(self.amplitude_px * (1 - np.square(2 * u - 1)))
        return np.asarray(self.amplitude_px * np.sin(2 * np.pi * (u + self.phase)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Geometry:
    """A map from pixels of the image to those of the variant: first the curve, then the matrix.

    Attributes:
      matrix: float64 [3, 3].
      curve: None for straight words.
      height_px: rows of the variant.
      width_px: columns of the variant.
      block_x_px: width of the blocks of pixels that are averaged first. The warps read 2 x 2 pixels and would skip
        pixels along an axis that shrinks by more. The axes differ: wide words are squeezed into the network's input.
      block_y_px: height of the blocks.
      text_px: rows of the variant that the image takes, before rotation: about the height of its text.
      is_scaling: the matrix does nothing but scale the image to the variant's size.
    """

    matrix: np.ndarray
    curve: _Curve | None
    height_px: int
    width_px: int
    block_x_px: int
    block_y_px: int
    text_px: float
    is_scaling: bool

    def warp_points(self, points: np.ndarray) -> np.ndarray:
        """Moves points of the image, float32 [..., 2], to where they are in the variant."""
        flat = points.reshape(-1, 1, 2).astype(np.float32)
        if self.curve:
            flat[..., 1] += self.curve.offset(flat[..., 0])
        return np.asarray(cv2.perspectiveTransform(flat, self.matrix).reshape(points.shape))

    def warp_image(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> [height_px, width_px, 3]; beyond its border the image is continued."""
        size = (self.width_px, self.height_px)
        if self.is_scaling:
            shrinks = image.shape[0] > self.height_px or image.shape[1] > self.width_px
            return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
        block_x, block_y = self.block_x_px, self.block_y_px
        if block_x > 1 or block_y > 1:
            # Whole blocks are a fast path of OpenCV. The last rows and columns that fill no block are lost.
            rows, columns = image.shape[0] // block_y, image.shape[1] // block_x
            whole = image[: rows * block_y, : columns * block_x]
            image = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
        if self.curve:
            return np.asarray(cv2.remap(image, *self._source(), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        matrix = self.matrix @ np.array([[block_x, 0, 0.5 * block_x], [0, block_y, 0.5 * block_y], [0, 0, 1]])
        matrix[:2] -= 0.5 * matrix[2]  # OpenCV's coordinates count from the centre of the first pixel
        if matrix[2, 0] == 0 == matrix[2, 1]:
            return np.asarray(cv2.warpAffine(image, matrix[:2], size, borderMode=cv2.BORDER_REPLICATE))
        return np.asarray(cv2.warpPerspective(image, matrix, size, borderMode=cv2.BORDER_REPLICATE))

    def _source(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel of the variant lies in the image: x and y, float32 [height_px, width_px].

        In blocks, counted from the centre of the first, as OpenCV does.
        """
        assert self.curve
        m = np.linalg.inv(self.matrix).astype(np.float32)
        x = np.arange(0.5, self.width_px, dtype=np.float32)
        y = np.arange(0.5, self.height_px, dtype=np.float32)[:, None]
        depth = m[2, 0] * x + (m[2, 1] * y + m[2, 2])
        source_x = (m[0, 0] * x + (m[0, 1] * y + m[0, 2])) / depth
        source_y = (m[1, 0] * x + (m[1, 1] * y + m[1, 2])) / depth - self.curve.offset(source_x)
        scale_x, scale_y = np.float32(1 / self.block_x_px), np.float32(1 / self.block_y_px)
        return source_x * scale_x - np.float32(0.5), source_y.astype(np.float32) * scale_y - np.float32(0.5)


def _random_geometry(height: int, width: int, model: ModelConfig, draws: _Draws, strength: float) -> _Geometry:
    """A random geometry for images of a size, framed so that the variant shows the whole word but for its margins.

    Plain numbers and not arrays where there are only a few: arrays of four points would take longer than the warp.
    """
    linear, is_diagonal = _random_linear(height, width, draws, strength)
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    outline = [(a * x + b * y, c * x + d * y) for (a, b), (c, d) in [linear] for x, y in corners]
    matrix = np.array([[*linear[0], 0], [*linear[1], 0], [0, 0, 1]])
    jitters = draws.chance(0.3, strength)
    if jitters:
        reach_px = _corner_reach_px(height, width, linear, strength)
        outline = [(x + draws.between(-reach_px, reach_px), y + draws.between(-reach_px, reach_px)) for x, y in outline]
        matrix = cv2.getPerspectiveTransform(np.array(corners, np.float32), np.array(outline, np.float32))
    curve = None
    if draws.chance(0.15, strength):
        amplitude_px = draws.between(-0.25, 0.25) * strength * min(height, width)
        amplitude_px = _before_horizon(amplitude_px, height, width, matrix)
        curve = _Curve(amplitude_px, width, draws.between(0, 1) if draws.chance(0.3) else None)
        outline = _curved_outline(height, width, curve, matrix)
    left, top = min(x for x, _ in outline), min(y for _, y in outline)
    frame_width, frame_height = max(x for x, _ in outline) - left, max(y for _, y in outline) - top
    has_margins = draws.chance(0.7, strength)
    if has_margins:
        margins_px = [draws.between(-0.08, 0.2) * strength * height for _ in range(4)]
        # Narrow words are cut by a share of their width, not of their height.
        before_x, after_x = (max(m, -0.08 * strength * frame_width) for m in margins_px[::2])
        before_y, after_y = (max(m, -0.08 * strength * frame_height) for m in margins_px[1::2])
        left, top = left - before_x, top - before_y
        frame_width, frame_height = frame_width + before_x + after_x, frame_height + before_y + after_y
    assert frame_width > 0 and frame_height > 0, (height, width, frame_width, frame_height)
    scale_y = model.height_px / frame_height
    # The network squeezes wider words into its width anyway.
    width_px = min(max(8, round(frame_width * scale_y)), model.width_px)
    scale_x = width_px / frame_width
    (a, b), (c, d) = linear
    return _Geometry(
        matrix=np.array([[scale_x, 0, -left * scale_x], [0, scale_y, -top * scale_y], [0, 0, 1]]) @ matrix,
        curve=curve,
        height_px=model.height_px,
        width_px=width_px,
        block_x_px=_block_px(width, math.hypot(scale_x * a, scale_y * c)),
        block_y_px=_block_px(height, math.hypot(scale_x * b, scale_y * d)),
        text_px=height * scale_y,
        is_scaling=is_diagonal and not (jitters or curve or has_margins),
    )


_Linear = tuple[tuple[float, float], tuple[float, float]]


def _random_linear(height: int, width: int, draws: _Draws, strength: float) -> tuple[_Linear, bool]:
    """Letter width, rotation and shear as a 2 x 2 matrix, and whether it is diagonal."""
    letter_width, angle, shear = 1.0, 0.0, 0.0
    if draws.chance(0.5, strength):
        letter_width = math.exp(draws.between(-0.4, 0.3) * strength)
    if draws.chance(0.5, strength):
        largest = math.radians(15 if draws.chance(0.3) else 5) * strength
        # Long words turn less: their box would become so high that the letters in it vanish.
        largest = min(largest, math.atan2(height, width))
        angle = draws.between(-largest, largest)
    if draws.chance(0.3, strength):
        shear = draws.between(-0.25, 0.25) * strength
    cos, sin = math.cos(angle), math.sin(angle)
    linear = ((cos * letter_width, cos * shear - sin), (sin * letter_width, sin * shear + cos))
    return linear, angle == 0 == shear


def _corner_reach_px(height: int, width: int, linear: _Linear, strength: float) -> float:
    """How far the corners may move per axis, so that they stay a convex quad up to a strength of 2.

    12 % of the height, but in narrow words 12 % of the distance between the left and the right edge. A quad that is not
    convex has the horizon of the perspective inside the word.
    """
    (a, b), (c, d) = linear
    thickness_px = width * (a * d - b * c) / math.hypot(b, d)
    return 0.12 * min(strength * height, min(1.0, strength) * thickness_px)


def _before_horizon(amplitude_px: float, height: int, width: int, matrix: np.ndarray) -> float:
    """Limits a curve's shift, so that no point of the image moves further than half the way to the horizon."""
    _, _, (x, y, constant) = matrix.tolist()
    nearest = constant + min(0.0, x * width) + min(0.0, y * height)
    limit_px = 0.5 * nearest / max(abs(y), 1e-9)
    return float(min(max(amplitude_px, -limit_px), limit_px))


def _block_px(pixels: int, scale: float) -> int:
    """Block size along an axis. At least 8 blocks, because the remainder that fills no block is lost."""
    return max(1, min(int(1 / scale + 0.3), pixels // 8))


def _curved_outline(height: int, width: int, curve: _Curve, matrix: np.ndarray) -> list[tuple[float, float]]:
    """Points around a curved image, after the matrix: its corners and the extremes of arcs and waves between them."""
    x = np.arange(5, dtype=np.float32) * (width / 4)
    points = np.empty((2, 5, 2), np.float32)
    points[..., 0] = x
    points[..., 1] = curve.offset(x)
    points[1, :, 1] += height
    return [(x, y) for ((x, y),) in cv2.perspectiveTransform(points.reshape(10, 1, 2), matrix).tolist()]


def _recolour(image: np.ndarray, draws: _Draws, strength: float) -> np.ndarray:
    """Inversion; gain, a colour cast and brightness in one linear map per channel."""
    inverts = draws.chance(0.3, strength)
    gains, bias = [1.0, 1.0, 1.0], 0.0
    if draws.chance(0.5, strength):
        gain = min(max(0.25, math.exp(draws.between(-1.0, 0.4) * strength)), 1.5)
        gains = [gain * (1 + draws.between(-0.15, 0.15) * strength) for _ in range(3)]
        bias = draws.between(-40, 40) * strength * gain  # a full shift would blacken what a low gain has dimmed
    elif not inverts:
        return image
    red, green, blue = gains
    channels = np.array([[red, 0, 0, bias], [0, green, 0, bias], [0, 0, blue, bias]])
    if inverts:  # gain * (255 - value) + bias
        channels[:, 3] += 255 * np.array(gains)
        channels[:, :3] *= -1
    return np.asarray(cv2.transform(image, channels))


def _reduce_resolution(image: np.ndarray, text_px: float, draws: _Draws, strength: float) -> np.ndarray:
    """Few rows, defocus, motion blur or a camera's sharpening, relative to the text's height; at most one of them."""
    height, width = image.shape[:2]
    if draws.chance(0.2, strength):
        text_rows = max(6.0, draws.between(8, 16) / max(strength, 0.5))
        rows = min(height, round(text_rows * height / text_px))
        small = cv2.resize(image, (max(4, round(width * rows / height)), rows), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
    if draws.chance(0.2, strength):
        return np.asarray(cv2.GaussianBlur(image, (0, 0), draws.between(0.01, 0.04) * strength * text_px))
    if draws.chance(0.1, strength):
        length_px = max(2, round(draws.between(0.06, 0.18) * strength * text_px))
        return np.asarray(cv2.filter2D(image, -1, motion_kernel(length_px, draws.between(0, math.pi))))
    if draws.chance(0.1, strength):
        blurred = cv2.GaussianBlur(image, (0, 0), 0.03 * text_px)
        amount = draws.between(0.4, 1.2) * strength
        return np.asarray(cv2.addWeighted(image, 1 + amount, blurred, -amount, 0))
    return image


def motion_kernel(length_px: int, angle: float) -> np.ndarray:
    """The filter of a straight motion: float32 [length_px, length_px] that sums to 1.

    Args:
      length_px: how far the camera moves.
      angle: direction in radians.
    """
    kernel = np.zeros((length_px, length_px), np.float32)
    centre, reach = (length_px - 1) / 2, length_px / 2
    start = (round(centre - reach * math.cos(angle)), round(centre - reach * math.sin(angle)))
    end = (round(centre + reach * math.cos(angle)), round(centre + reach * math.sin(angle)))
    cv2.line(kernel, start, end, 1.0, 1)
    return np.asarray(kernel / max(kernel.sum(), 1.0))


def _add_noise(image: np.ndarray, draws: _Draws, deviation: float) -> np.ndarray:
    """Gaussian noise of a standard deviation in 0..255, cut from a field that is drawn once per process."""
    height, width = image.shape[:2]
    field = _noise_field()
    y = int(draws.between(0, max(1, field.shape[0] - height)))
    x = int(draws.between(0, max(1, field.shape[1] - width)))
    part = field[y : y + height, x : x + width]
    if part.shape != image.shape:  # a network with a larger input than the field
        part = np.resize(field, image.shape)
    weight = deviation / NOISE_DEVIATION
    return np.asarray(cv2.addWeighted(image, 1.0, part, weight, -128 * weight))


@functools.lru_cache(maxsize=1)
def _noise_field() -> np.ndarray:
    noise = np.random.default_rng(0).normal(128, NOISE_DEVIATION, NOISE_SHAPE)
    return np.clip(np.round(noise), 0, 255).astype(np.uint8)


def _compress(image: np.ndarray, quality: int) -> np.ndarray:
    """JPEG and back. OpenCV's order is BGR, and JPEG keeps less of blue than of red."""
    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))[..., ::-1])
