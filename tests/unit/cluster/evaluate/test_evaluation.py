"""Scores: broken images, skipped labels, mistakes by confidence, and sums of parts."""

import dataclasses
import functools
import operator

import cv2
import numpy as np
import pytest

import textscanner
from cluster.evaluate.evaluation import MAX_MISTAKES, DatasetScore, records_of, score_records
from tests import formats
from tests.factories import write_dataset
from textscanner.data.images import decode, is_vertical
from textscanner.data.schema import WordRecord
from textscanner.errors import UserError
from textscanner.inference.postprocess import Reading


@dataclasses.dataclass
class FixedRecognizer:
    """Returns readings in the order of its texts, the later ones with more confidence."""

    texts: list[str]
    num_read: int = 0

    def read(self, images):
        first = self.num_read
        self.num_read += len(images)
        return [Reading(self.texts[i], i / len(self.texts), ()) for i in range(first, self.num_read)]


def test_a_broken_image_counts_as_misread(words):
    records = [words[0], WordRecord(b"broken", "abc", None, "x"), words[1]]
    score = score_records(FixedRecognizer([words[0].text, words[1].text]), records)
    assert (score.counts.num_words, score.num_broken) == (3, 1)
    assert score.counts.word_accuracy == pytest.approx(2 / 3)
    assert [(m.truth, m.reading) for m in score.mistakes] == [("abc", "")]


def test_a_label_without_letters_and_digits_is_skipped(words):
    record = dataclasses.replace(words[0], text="!?", quads=None)
    score = score_records(FixedRecognizer(["anything"]), [record])
    assert (score.counts.num_words, score.counts.num_skipped, score.mistakes) == (0, 1, ())


def test_case_is_not_scored_where_it_is_not_known(words):
    records = [dataclasses.replace(words[0], text="Hotel", quads=None, case_known=known) for known in (True, False)]
    counts = score_records(FixedRecognizer(["HOTEL"] * 2), records).counts
    assert (counts.num_words, counts.num_correct, counts.num_cased, counts.num_exact) == (2, 2, 1, 1)


def test_the_case_of_street_view_text_is_not_scored(words, tmp_path):
    formats.svt(tmp_path, words[:3])
    records, _ = records_of(str(tmp_path))
    assert [record.case_known for record in records] == [False] * 3


def test_the_most_confident_mistakes_are_kept(words):
    records = [words[i % 64] for i in range(2 * MAX_MISTAKES)]
    score = score_records(FixedRecognizer(["wrong1"] * len(records)), records)
    confidences = [mistake.confidence for mistake in score.mistakes]
    assert len(confidences) == MAX_MISTAKES
    assert confidences == sorted(confidences, reverse=True) and min(confidences) >= 0.5


def test_the_score_of_parts_adds_up_to_the_score_of_the_whole(words):
    texts = [record.text if i % 3 else "wrong1" for i, record in enumerate(words)]
    whole = score_records(FixedRecognizer(texts), words)
    parts = [score_records(FixedRecognizer(texts[i : i + 16]), words[i : i + 16]) for i in range(0, 64, 16)]
    total = functools.reduce(operator.add, parts, DatasetScore())
    assert dataclasses.asdict(total.counts) == pytest.approx(dataclasses.asdict(whole.counts))
    assert {m.truth for m in total.mistakes} == {m.truth for m in whole.mistakes}


def test_records_of_data_sets_and_of_labelled_images(words, tmp_path):
    uri = write_dataset(str(tmp_path / "set"), words[:6])
    formats.tsv(tmp_path / "tsv", words[:6])
    for source in (uri, str(tmp_path / "tsv")):
        records, count = records_of(source)
        assert count == 6 and [record.text for record in records] == [record.text for record in words[:6]]
    (tmp_path / "tsv" / "labels.tsv").write_text("")
    with pytest.raises(UserError, match="has no labelled row"):
        records_of(str(tmp_path / "tsv"))


def test_vertical_words_are_scored_as_they_are_read(words):
    reader = textscanner.load_fast("small")
    images = [np.rot90(decode(record.image, record.source)) for record in words[:12]]
    files = [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in images]
    readings = reader.read(images)
    records = [WordRecord(file, r.text or "-", None, "x") for file, r in zip(files, readings, strict=True)]
    assert sum(is_vertical(image) for image in images) > 6
    assert score_records(reader, records).counts.word_accuracy == 1.0
