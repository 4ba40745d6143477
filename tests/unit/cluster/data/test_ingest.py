"""Rows of a data set as the network gets them."""

import dataclasses

import cv2
import numpy as np
import pytest

from cluster.config import IngestConfig
from cluster.data.ingest import ChunkReader, make_training_sampler
from cluster.data.sampler import share_reads
from cluster.data.shards import read_manifest
from tests.factories import write_dataset
from textscanner.data.annotations import quads_of_boxes
from textscanner.data.schema import WordRecord
from textscanner.errors import UserError
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
    (chunk_read,) = share_reads([read_manifest(uri)], worker=0, num_workers=1)
    reader = ChunkReader(preset("tiny"), (uri,), augment=augment, ingest=IngestConfig())
    return reader.read(chunk_read)


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


def test_a_stream_reads_its_part_of_a_row_group_in_shuffled_order(tmp_path, words):
    uri = write_dataset(str(tmp_path / "set"), words[:20], num_shards=1)
    config = preset("tiny")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, train=(uri,), num_streams=4))
    reader = ChunkReader(config, (uri,), augment=True, ingest=IngestConfig())
    sampler = make_training_sampler(config)
    texts = {}
    for stream in range(4):
        rows = reader.read(next(sampler.chunk_reads(stream, 0)))
        assert len(rows["length"]) == 5
        texts |= dict(zip(rows["row_id"].tolist(), rows["text"].tolist(), strict=True))
    assert list(texts) != sorted(texts)
    assert [texts[i] for i in range(20)] == [word.text for word in words[:20]]


def test_the_sampler_refuses_other_data_than_the_run_began_with(tmp_path, words):
    uri = write_dataset(str(tmp_path / "set"), words[:4])
    config = preset("tiny")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, train=(uri,)))
    make_training_sampler(config, {uri: read_manifest(uri).content_hash})
    with pytest.raises(UserError, match=f"^{uri} has changed since this run began"):
        make_training_sampler(config, {uri: "0" * 64})


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
