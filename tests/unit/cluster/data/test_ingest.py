"""Rows of a data set as the network gets them."""

import dataclasses

import cv2
import numpy as np
import pytest

from cluster.config import IngestConfig
from cluster.data.ingest import ChunkReader
from cluster.data.sampler import ChunkRead, cut_chunks
from cluster.data.shards import read_manifest
from tests.factories import write_dataset
from textscanner.data.annotations import quads_of_boxes
from textscanner.data.schema import WordRecord
from textscanner.presets import preset
from textscanner.training.step import batch_signature

SIDE_BY_SIDE = quads_of_boxes([[0, 0, 10, 40], [10, 0, 10, 40]])
STACKED = quads_of_boxes([[0, 0, 20, 20], [1, 20, 20, 20]])


def record_of(text, height=20, width=40, quads=None, case_known=True):
    image = cv2.imencode(".png", np.full((height, width, 3), 90, np.uint8))[1].tobytes()
    return WordRecord(image, text, quads, text, case_known)


def read(folder, records, augment):
    """The rows of a data set of these records, in storage order."""
    uri = write_dataset(str(folder / "set"), records, num_shards=1)
    (chunk,) = cut_chunks(read_manifest(uri), 64)
    config = preset("tiny")
    reader = ChunkReader(config, (uri,), augment=augment, ingest=IngestConfig())
    rows = reader.read(ChunkRead(0, 0, 0, chunk, skip=0, shuffle_seed=()))
    order = np.argsort(rows["row_id"])
    return {name: column[order] for name, column in rows.items()}


@pytest.mark.parametrize("augment", [True, False])
def test_rows_have_the_columns_of_a_batch(augment, tmp_path, words):
    rows = read(tmp_path, words[:3], augment)
    signature = batch_signature(preset("tiny"), 3)
    assert set(rows) == {*signature, "text"}
    for name, spec in signature.items():
        assert (rows[name].shape, rows[name].dtype) == (tuple(spec.shape), spec.dtype.as_numpy_dtype)


def test_rows_say_whether_the_case_of_their_label_is_known(tmp_path, words):
    records = [dataclasses.replace(word, case_known=i != 1) for i, word in enumerate(words[:3])]
    assert read(tmp_path, records, augment=True)["case_known"].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("record", "trained"),
    [
        (record_of("ab", 20, 40), True),
        (record_of("ab", 30, 20), True),
        (record_of("ab", 40, 20), False),
        (record_of("a", 40, 20), True),
        (record_of("ab", 40, 20, SIDE_BY_SIDE), True),
        (record_of("ab", 40, 20, STACKED), False),
        (record_of("ab", 40, 20, SIDE_BY_SIDE[::-1]), False),
    ],
)
def test_vertical_words_are_evaluated_but_not_trained_on(record, trained, tmp_path):
    rows = read(tmp_path / "train", [record], augment=True)
    assert (rows["length"][0] > 0) == trained
    assert rows["image"].any()  # also pixels that are not learned from enter the statistics of batch norm
    assert read(tmp_path / "val", [record], augment=False)["length"][0] == len(record.text)
