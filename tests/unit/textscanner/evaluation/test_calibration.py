"""Calibration of the decoder threshold."""

import numpy as np

from textscanner.charset import ALPHANUMERIC
from textscanner.config import BEST_METRIC
from textscanner.evaluation.calibration import THRESHOLDS, Calibration
from textscanner.inference.decode import Decoded


def test_calibration_selects_the_threshold_with_most_correct_words():
    # Four words "ab": three want a threshold in (0.22, 0.41], one in (0.52, 0.56].
    presence = np.array([[0.9, 0.41, 0.22], [0.8, 0.45, 0.12], [0.9, 0.6, 0.21], [0.9, 0.56, 0.52]], np.float32)
    raw = np.tile(np.array([12, 13, 14], np.int32), (4, 1))
    nothing = np.zeros((4, 3, 2))
    decoded = Decoded(raw, presence, nothing, nothing, presence, raw, presence[:, 0])
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        half = Calibration(2)
        half.add(0, ["ab", "AB"], Decoded(*(v[part] for v in decoded)), ALPHANUMERIC)
        halves.append(half.as_vector())
    merged = Calibration(2).with_vector(halves[0] + halves[1])
    threshold, metrics = merged.best(["one", "none"])
    assert 0.22 < threshold <= 0.41 and threshold in THRESHOLDS
    assert metrics["val/one/word_accuracy"] == metrics[BEST_METRIC] == 0.75
    assert metrics["val/none/word_accuracy"] == 0.0
