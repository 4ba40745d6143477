"""Scenes: words and their characters are cropped where the annotation says."""

import shutil

import numpy as np
import pytest

from cluster.data.importers.registry import open_source
from tests import formats
from textscanner.data.annotations import Reject
from textscanner.data.images import decode


@pytest.mark.parametrize("name", ["svt", "synthtext"])
def test_words_are_cropped_with_their_characters(name, seven_words, tmp_path):
    """The pixels under each word (SynthText: under each character's quad) are the original's."""
    formats.FORMATS[name][0](tmp_path, seven_words)
    for row, original in zip(formats.read_all(open_source(str(tmp_path))), seven_words, strict=True):
        crop, word = decode(row.image, ""), decode(original.image, "")
        if name == "svt":
            pairs = [(crop, word)]
        else:
            corners = ((np.round(quads.min(1)), np.round(quads.max(1))) for quads in (row.quads, original.quads))
            (low, high), (low0, high0) = corners
            pairs = [
                (crop[int(b) : int(d), int(a) : int(c)], word[int(f) : int(h), int(e) : int(g)])
                for (a, b), (c, d), (e, f), (g, h) in zip(low, high, low0, high0, strict=True)
            ]
        for a, b in pairs:
            height, width = np.minimum(a.shape[:2], b.shape[:2])
            assert abs(a.shape[0] - b.shape[0]) <= 1 and abs(a.shape[1] - b.shape[1]) <= 1
            difference = np.abs(a[:height, :width].astype(int) - b[:height, :width])
            assert np.median(difference) < 12  # JPEG twice, and half a pixel


@pytest.mark.parametrize(("name", "case_known"), [("svt", False), ("synthtext", None)])
def test_the_upper_case_labels_of_street_view_text_have_no_known_case(name, case_known, seven_words, tmp_path):
    formats.FORMATS[name][0](tmp_path, seven_words)
    assert {row.case_known for row in formats.read_all(open_source(str(tmp_path)))} == {case_known}


def test_every_word_of_a_missing_scene_is_counted(seven_words, tmp_path):
    formats.synthtext(tmp_path, seven_words)
    shutil.rmtree(tmp_path / "1")
    rows = formats.read_all(open_source(str(tmp_path)))
    assert [row.reason for row in rows if isinstance(row, Reject)] == ["missing_image"] * 3
