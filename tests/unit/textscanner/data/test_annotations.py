"""Annotated words: accepted rows, reasons for rejects, and the quads of a crop."""

import cv2
import numpy as np
import pytest

from textscanner.data.annotations import Reject, Word, crop_word, quads_of_boxes, to_record, transform

PIXELS = cv2.imencode(".png", np.full((20, 40, 3), 90, np.uint8))[1].tobytes()
BOXES = [[0, 0, 10, 20], [12, 0, 10, 20]]


@pytest.mark.parametrize(
    ("image", "text", "boxes", "reason"),
    [
        (PIXELS, " ", None, "empty_label"),
        (PIXELS, "x" * 9, None, "too_long"),
        (None, "ab", None, "missing_image"),
        (PIXELS[:30], "ab", None, "broken_image"),
        (b"", "ab", None, "broken_image"),
        (PIXELS, "abc", BOXES, "box_count"),
        (PIXELS, "ab", [[0, 0, 10, 20], [30, 0, 15, 20]], "box_outside"),
        (PIXELS, "ab", [[0, 0, 10, 20], [12, 5, 0, 5]], "box_outside"),
    ],
)
def test_an_unusable_row_is_a_reject_with_its_reason(image, text, boxes, reason):
    word = Word(image, text, None if boxes is None else quads_of_boxes(boxes), "x")
    reject = to_record(word, max_label_length=8)
    assert isinstance(reject, Reject) and reject.reason == reason


def test_boxes_become_quads_clipped_to_the_image():
    record = to_record(Word(PIXELS, "ab", quads_of_boxes([[-1.5, 0, 10, 20], [30, -1, 11, 22]]), "x"))
    np.testing.assert_allclose(record.quads[0], [[0, 0], [8.5, 0], [8.5, 20], [0, 20]])
    np.testing.assert_allclose(record.quads[1], [[30, 0], [40, 0], [40, 20], [30, 20]])


@pytest.mark.parametrize("boxes", [None, BOXES])
@pytest.mark.parametrize("of_all_words", [True, False])
@pytest.mark.parametrize("of_word", [None, True, False])
def test_a_word_that_does_not_say_whether_its_case_is_known_follows_the_import(of_word, of_all_words, boxes):
    word = Word(PIXELS, "AB", None if boxes is None else quads_of_boxes(boxes), "x", of_word)
    record = to_record(word, case_known=of_all_words)
    assert record.case_known == (of_all_words if of_word is None else of_word)
    assert (record.quads is None) == (boxes is None)


@pytest.mark.parametrize("turns", range(4))
def test_a_crop_is_upright_and_its_quads_move_with_it(turns):
    """A scene with one word, rotated by quarter turns: the crop is always the same."""
    scene = np.zeros((60, 100, 3), np.uint8)
    scene[20:30, 10:50] = 90
    scene[20:30, 10:20] = (200, 0, 0)
    outline = np.array([[10, 20], [50, 20], [50, 30], [10, 30]], np.float64)
    word = scene[20:30, 10:50]
    for _ in range(turns):  # clockwise, the reading direction with it
        height = scene.shape[0]
        scene = np.rot90(scene, -1)
        outline = np.stack([height - outline[:, 1], outline[:, 0]], 1)
    crop, affine = crop_word(scene, outline)
    np.testing.assert_array_equal(crop, word)
    np.testing.assert_allclose(transform(outline, affine), [[0, 0], [40, 0], [40, 10], [0, 10]])


def test_a_crop_outside_the_scene_is_refused_and_one_at_its_edge_is_clipped():
    scene = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(ValueError, match="no part of the word"):
        crop_word(scene, quads_of_boxes([[40, 0, 10, 10]])[0])
    crop, affine = crop_word(scene, quads_of_boxes([[25, 5, 10, 10]])[0], margin=0.2)
    assert crop.shape[:2] == (14, 7)
    np.testing.assert_allclose(transform(np.array([25.0, 5.0]), affine), [2, 2])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_quads_that_are_not_finite_are_refused(words, value):
    record = words[0]
    quads = record.quads.copy()
    quads[0, 0, 0] = value
    assert to_record(Word(record.image, record.text, quads, "x")).reason == "box_outside"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -1e300])
def test_an_outline_that_is_not_finite_or_far_away_is_not_cropped(value):
    scene = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(ValueError, match="word"):
        crop_word(scene, np.array([[value, 2], [value, 2], [value, 9], [value, 9]]))


def test_half_a_character_costs_only_its_row(words):
    """JSON can state a lone surrogate, UTF-8 cannot."""
    reject = to_record(Word(words[0].image, "a\ud800", None, "\udfff.jpg"))
    assert (reject.reason, reject.file) == ("bad_row", "\\udfff.jpg")
    reject.detail.encode()
    assert to_record(Word(words[0].image, "ab", None, "\udfff.jpg")).source == "\\udfff.jpg"
