"""From images to readings: orientations of vertical images, positions in the original image, batches."""

import numpy as np
import pytest

import textscanner
from textscanner.charset import Charset
from textscanner.config import ModelConfig
from textscanner.data.images import decode, is_vertical
from textscanner.inference.onnx_reader import _OutputArrays
from textscanner.inference.postprocess import UPRIGHT, read_images, turn, turn_back

CHARSET = Charset("abcdef")
MODEL = ModelConfig(height_px=32, width_px=64)
VERTICAL, FLAT = (80, 40), (40, 80)
COUNTER_CLOCKWISE, CLOCKWISE = 1, -1
CONFIDENCES = {"": 0.0, "a": 0.9, "ab": 0.8, "ba": 0.8, "cd": 0.5, "ef": 0.6, "f": 0.1}
CENTRES = np.array([[8.0, 4.0], [40.0, 20.0]])  # of the first and second character in the network's input


class FakeNetwork:
    """Reads what `image_of` has drawn for the orientation that it sees."""

    def __init__(self):
        self.batch_sizes = []

    def __call__(self, inputs):
        self.batch_sizes.append(len(inputs))
        words = [self.read(pixels) for pixels in inputs]
        ids = np.zeros((len(words), 3), np.int32)
        for row, word in zip(ids, words, strict=True):
            row[: len(word)] = CHARSET.encode(word)
        scores = np.eye(CHARSET.num_classes)[ids] * (ids > 0)[..., None]
        return _OutputArrays(
            ids=ids,
            confidences=0.9 * (ids > 0),
            centres=np.tile(np.append(CENTRES, [[0, 0]], 0), (len(words), 1, 1)),
            scores=scores,
            presence=0.9 * (ids > 0),
            word_confidence=np.array([CONFIDENCES[word] for word in words]),
        )

    @staticmethod
    def read(pixels):
        half = MODEL.height_px // 2
        corners = {UPRIGHT: pixels[:half, :half], COUNTER_CLOCKWISE: pixels[half:, :half]}
        dark = [turns for turns, corner in corners.items() if corner.mean() < pixels.mean() / 2]
        channel = [UPRIGHT, COUNTER_CLOCKWISE, CLOCKWISE].index(dark[0] if dark else CLOCKWISE)
        return list(CONFIDENCES)[round(pixels[..., channel].max() / 20) - 1]


def image_of(upright="", counter_clockwise="", clockwise="", shape=VERTICAL):
    """An image that the fake network reads as given in each orientation: one channel each, the top left corner dark."""
    image = np.zeros((*shape, 3), np.uint8)
    image[:] = [20 * (1 + list(CONFIDENCES).index(word)) for word in (upright, counter_clockwise, clockwise)]
    image[: shape[0] // 2, : shape[1] // 2] = 0
    return image


def read(*images, network=None, **options):
    return read_images(images, model=MODEL, charset=CHARSET, run=network or FakeNetwork(), threshold=0.5, **options)


@pytest.mark.parametrize(
    ("upright", "counter_clockwise", "clockwise", "expected"),
    [
        ("ab", "cd", "ef", "ab"),
        ("cd", "ab", "ef", "ab"),
        ("cd", "ef", "ab", "ab"),
        ("ab", "ba", "ba", "ab"),  # equal confidence
        ("f", "", "", "f"),
        ("f", "", "cd", "cd"),
        ("", "cd", "ef", "ef"),
        ("", "", "f", "f"),
        ("", "", "", ""),
        ("cd", "a", "ef", "ef"),  # a single character does not fill a turned image
        ("cd", "a", "a", "cd"),
    ],
)
def test_the_most_confident_orientation_of_a_vertical_image_is_kept(upright, counter_clockwise, clockwise, expected):
    (reading,) = read(image_of(upright, counter_clockwise, clockwise))
    assert (reading.text, reading.confidence) == (expected, CONFIDENCES[expected])
    assert "".join(c.text for c in reading.characters) == expected


@pytest.mark.parametrize("shape", [FLAT, (40, 40), (60, 40)])
def test_an_image_that_is_not_vertical_is_read_upright_only(shape):
    network = FakeNetwork()
    assert read(image_of("cd", "ab", "ab", shape), network=network)[0].text == "cd"
    assert network.batch_sizes == [1]


def test_mixed_images_keep_their_order_and_batches_their_size():
    network = FakeNetwork()
    images = [image_of("cd", "ab", "ef"), image_of("ef", "ab", "ab", FLAT)] * 6
    readings = read(*images, network=network, batch_size=5)
    assert [reading.text for reading in readings] == ["ab", "ef"] * 6
    assert network.batch_sizes == [5, 5, 5, 5, 4]
    assert read(network=network) == []


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("quarter_turns", [UPRIGHT, COUNTER_CLOCKWISE, CLOCKWISE])
def test_a_pixel_of_a_turned_image_is_found_again_in_the_original(quarter_turns, seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    image = np.zeros((height, width, 3), np.uint8)
    x, y = int(rng.integers(width)), int(rng.integers(height))
    image[y, x] = 255
    turned_y, turned_x = np.argwhere(turn(image, quarter_turns)[..., 0])[0]
    points = turn_back(np.array([[turned_x + 0.5, turned_y + 0.5]]), quarter_turns, image.shape)
    assert points.tolist() == [[x + 0.5, y + 0.5]]


def test_centres_are_pixels_of_the_original_image():
    """The network's input has 64 x 32 pixels; the upright image 40 x 80, the turned one 80 x 40."""
    centres = {
        kept: [(c.x_px, c.y_px) for c in read(image_of(**{kept: "ab"}))[0].characters]
        for kept in ("upright", "counter_clockwise", "clockwise")
    }
    assert centres["upright"] == [(5, 10), (25, 50)]
    assert centres["counter_clockwise"] == [(40 - 5, 10), (40 - 25, 50)]
    assert centres["clockwise"] == [(5, 80 - 10), (25, 80 - 50)]


@pytest.fixture(scope="module")
def wide_words(words):
    """Drawn words that are clearly wider than tall, so that they are vertical when turned."""
    images = [decode(record.image, record.source) for record in words]
    return [image for image in images if is_vertical(turn(image, 1))][:24]


@pytest.fixture(scope="module", params=[textscanner.load, textscanner.load_fast], ids=["checkpoint", "onnx"])
def reader(request):
    return request.param("small")


@pytest.mark.parametrize("quarter_turns", [COUNTER_CLOCKWISE, CLOCKWISE])
def test_words_turned_by_90_degrees_are_read_with_their_positions(wide_words, reader, quarter_turns):
    upright = reader.read(wide_words)
    turned = reader.read([turn(image, quarter_turns) for image in wide_words])
    alike = [i for i, (a, b) in enumerate(zip(upright, turned, strict=True)) if a.text == b.text]
    assert len(alike) > 0.8 * len(wide_words)
    for i in alike:
        centres = np.array([(c.x_px, c.y_px) for c in turned[i].characters])
        back = turn_back(centres, quarter_turns, wide_words[i].shape)
        np.testing.assert_allclose(back, [(c.x_px, c.y_px) for c in upright[i].characters], atol=0.5)
