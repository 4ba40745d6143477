"""Calibration of the decoder threshold."""

import numpy as np
import pytest

from textscanner.charset import ALPHANUMERIC, FIRST_CHARACTER_ID, Charset
from textscanner.config import BEST_METRIC
from textscanner.evaluation import calibration
from textscanner.evaluation.calibration import THRESHOLDS, Calibration
from textscanner.evaluation.metrics import WordCounts, score_pairs
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


def random_decoded(rng, charset, rows=20, positions=6):
    presence = np.sort(rng.random((rows, positions)).astype(np.float32), -1)[:, ::-1]
    raw_ids = rng.integers(FIRST_CHARACTER_ID, charset.num_classes, (rows, positions)).astype(np.int32)
    nothing = np.zeros((rows, positions, 2))
    return Decoded(raw_ids, presence, nothing, nothing, presence, raw_ids, presence[:, 0])


def test_every_threshold_is_scored_as_if_it_were_alone():
    rng = np.random.default_rng(5)
    charset = Charset("aA!", case_sensitive=True)
    decoded = random_decoded(rng, charset)
    truths = [charset.decode(ids[: 1 + i % 4]) for i, ids in enumerate(decoded.raw_ids)]
    known = (rng.random(len(truths)) < 0.5).tolist()
    own = Calibration(1)
    own.add(0, truths, decoded, charset, known)
    for threshold, vector in zip(THRESHOLDS, own.as_vector().reshape(len(THRESHOLDS), -1), strict=True):
        alive = np.cumprod(decoded.presence >= threshold, -1)
        readings = [charset.decode(ids) for ids in decoded.raw_ids * alive]
        assert WordCounts.from_vector(vector) == WordCounts.from_pairs(truths, readings, known)


def test_each_distinct_reading_is_scored_once(monkeypatch):
    scored = []
    monkeypatch.setattr(calibration, "score_pairs", lambda t, r, k: scored.extend(r) or score_pairs(t, r, k))
    decoded = random_decoded(np.random.default_rng(0), ALPHANUMERIC, rows=1)
    decoded = decoded._replace(presence=np.array([[0.99, 0.97, 0.5, 0.01, 0.01, 0.01]], np.float32))
    Calibration(1).add(0, ["abc"], decoded, ALPHANUMERIC)
    assert sorted(map(len, scored)) == [2, 3]


def test_the_threshold_is_selected_by_the_case_insensitive_score():
    """Two words are read in the wrong case above 0.5, one in the right case below 0.3."""
    charset = Charset("aA", case_sensitive=True)
    decoded = random_decoded(np.random.default_rng(0), charset, rows=3, positions=2)
    decoded = decoded._replace(
        presence=np.array([[0.9, 0.5], [0.9, 0.5], [0.9, 0.3]], np.float32),
        raw_ids=np.array([[2, 2], [2, 2], [3, 3]], np.int32),
    )
    own = Calibration(1)
    own.add(0, ["A", "A", "AA"], decoded, charset)
    threshold, metrics = own.best(["one"])
    assert threshold > 0.5
    assert (metrics[BEST_METRIC], metrics["val/word_accuracy_cased"]) == (pytest.approx(2 / 3), 0.0)
