"""Every format: found out, read, and what is wrong in it counted. The files are written by `tests/formats.py`."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest

from cluster.data.importers.registry import open_source
from tests import formats
from textscanner.data.annotations import Reject, Word, to_record
from textscanner.data.images import decode

SCENES = ("svt", "synthtext")


def rows_of(source, size=3):
    return [row for part in source.parts(size) for row in source.read(part)]


@pytest.fixture
def some(words):
    """Seven words: an odd number, so that the last scene of three has a single one."""
    return words[:7]


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_format_is_found_out_and_read_with_its_quads(name, some, tmp_path):
    write, form, with_quads = formats.FORMATS[name]
    write(tmp_path, some)
    found, told = (rows_of(open_source(str(tmp_path), f)) for f in ("auto", form))
    assert [row.source for row in found] == [row.source for row in told]
    if name == "trdg":  # names are in the order of the alphabet
        some = sorted(some, key=lambda r: f"{r.text}_{some.index(r)}.jpg")
    records = [to_record(row) for row in found]
    assert [r.text for r in records] == [r.text for r in some]
    if name not in SCENES:
        assert [r.image for r in records] == [r.image for r in some]
    for record, original in zip(records, some, strict=True):
        assert (record.quads is not None) == with_quads
        if with_quads and name != "synthtext":
            wanted = formats.boxes_of(original)
            np.testing.assert_allclose(record.quads[:, 0], wanted[:, :2])
            np.testing.assert_allclose(record.quads[:, 2], wanted[:, 2:])


@pytest.mark.parametrize("name", SCENES)
def test_words_are_cut_out_of_scenes_with_their_characters(name, some, tmp_path):
    """The pixels under each word (SynthText: under each character's quad) are the original's."""
    formats.FORMATS[name][0](tmp_path, some)
    for row, original in zip(rows_of(open_source(str(tmp_path))), some, strict=True):
        crop, before = decode(row.image, ""), decode(original.image, "")
        if name == "svt":
            pairs = [(crop, before)]
        else:
            corners = ((np.round(quads.min(1)), np.round(quads.max(1))) for quads in (row.quads, original.quads))
            (low, high), (low0, high0) = corners
            pairs = [
                (crop[int(b) : int(d), int(a) : int(c)], before[int(f) : int(h), int(e) : int(g)])
                for (a, b), (c, d), (e, f), (g, h) in zip(low, high, low0, high0, strict=True)
            ]
        for a, b in pairs:
            height, width = np.minimum(a.shape[:2], b.shape[:2])
            assert abs(a.shape[0] - b.shape[0]) <= 1 and abs(a.shape[1] - b.shape[1]) <= 1
            difference = np.abs(a[:height, :width].astype(int) - b[:height, :width])
            assert np.median(difference) < 12  # JPEG twice, and half a pixel


def test_a_zip_is_a_folder(some, tmp_path):
    formats.icdar_zip(tmp_path, some)
    source = open_source(str(tmp_path / "ch4_training_word_images_gt.zip"))
    assert [(r.text, r.image) for r in rows_of(source)] == [(r.text, r.image) for r in some]


@pytest.mark.parametrize("name", [n for n, (_, form, _) in formats.FORMATS.items() if form not in ("webdataset",)])
def test_count_is_the_number_of_rows(name, some, tmp_path):
    formats.FORMATS[name][0](tmp_path, some)
    source = open_source(str(tmp_path))
    assert source.count() == len(some) == len(rows_of(source))


@pytest.mark.parametrize(
    ("file", "content", "wanted", "bad"),
    [
        ("labels.tsv", 'file\ttext\na.png\tsay "hi"\nb.png\tb,c\nalone\n', ['say "hi"', "b,c"], ["line 4"]),
        ("labels.csv", 'a.png,"b,c"\n', ["b,c"], []),
        ("labels.csv", 'filename,words\na.png,b,"c"\nalone\n', ['b,"c"'], ["line 3"]),
        ("gt.txt", '\ufeffa.png, "say \\"hi\\", you"\nb.png, nothing\n', ['say "hi", you'], ["line 2"]),
        ("rec_gt.txt", '["a.png", "b.png"]\tone\nc.png\t[{"transcription": "x"}]\n', ["one", "one"], ["line 2"]),
        ("labels.json", '{"a.png": "é", "b.png": 7}', ["é"], ["b.png"]),
        ("labels.txt", "0.jpg two words\nalone\n", ["two words"], ["line 2"]),
        ("labels.jsonl", '{"text": "ab"}\n\nno json\n{"file": "a", "text": "b", "boxes": "x"}', [], ["1", "3", "4"]),
    ],
)
def test_what_stands_in_label_files(file, content, wanted, bad, tmp_path):
    (tmp_path / file).write_text(content)
    found = rows_of(open_source(str(tmp_path)))
    assert [row.text for row in found if isinstance(row, Word)] == wanted
    rejects = [row for row in found if isinstance(row, Reject)]
    assert len(rejects) == len(bad) and all(b in r.file for b, r in zip(bad, rejects, strict=True))
    assert {row.reason for row in rejects} <= {"bad_row"}


def test_splits(some, tmp_path):
    lines = [{"file": f"{i}.jpg", "text": "ab", "split": "val" if i == 2 else "train"} for i in range(4)]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [row.source for row in rows_of(open_source(str(tmp_path), split="val"))] == ["2.jpg"]
    formats.parquet(tmp_path / "parquet", some)
    assert open_source(str(tmp_path / "parquet"), split="train").count() == len(some)
    with pytest.raises(ValueError, match=r"no \.parquet file of split 'test'"):
        open_source(str(tmp_path / "parquet"), split="test").count()
    formats.tsv(tmp_path / "tsv", some)
    with pytest.raises(ValueError, match="the format tsv has no splits"):
        open_source(str(tmp_path / "tsv"), split="train")


def test_what_is_missing_or_damaged_inside_is_counted(some, tmp_path):
    formats.lmdb_file(tmp_path / "lmdb", some)
    import lmdb

    with lmdb.open(str(tmp_path / "lmdb")) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"label-000000002")
        transaction.delete(b"image-000000003")
    rows = rows_of(open_source(str(tmp_path / "lmdb")))
    assert isinstance(rows[1], Reject) and rows[2].image is None and len(rows) == len(some)

    formats.webdataset(tmp_path / "tar", some)
    shard = tmp_path / "tar" / "words-000000.tar"
    with tarfile.open(shard) as archive:
        third = archive.getmembers()[4].offset_data
    shard.write_bytes(shard.read_bytes()[: third + 10])
    rows = rows_of(open_source(str(tmp_path / "tar")))
    rejects = [row for row in rows if isinstance(row, Reject)]
    assert len(rejects) == 1 and "words-000000.tar" in rejects[0].file
    assert [row.text for row in rows if isinstance(row, Word)] == [r.text for r in [*some[:2], *some[3:]]]

    formats.synthtext(tmp_path / "synth", some)
    shutil.rmtree(tmp_path / "synth" / "1")
    rows = rows_of(open_source(str(tmp_path / "synth")))
    assert [row.reason for row in rows if isinstance(row, Reject)] == ["missing_image"] * 3


def test_sources_that_cannot_be_read_are_sentences(some, tmp_path):
    def refused(match, *args, **more):
        with pytest.raises(ValueError, match=match):
            rows_of(open_source(*args, **more))

    refused("does not exist", str(tmp_path / "none"))
    refused("holds no labelled images of a known format; there is nothing", str(tmp_path))
    refused("--format is 'xls'", str(tmp_path), "xls")
    refused("has no labels.tsv", str(tmp_path), "tsv")
    (tmp_path / "x.zip").write_text("no zip")
    refused("is not a zip that can be read", str(tmp_path / "x.zip"))
    for name in ("gt.mat", "labels.json", "train.xml", "data.mdb", "x.parquet"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_bytes(b"nothing that anybody could read" * 300)
        refused(name, str(folder))
    (tmp_path / "labels.tsv").write_bytes("a.png\tcafé".encode("latin-1"))
    refused("labels.tsv is not UTF-8", str(tmp_path))


def test_an_empty_archive_member_is_not_a_sample(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("folder"), io.BytesIO())
    (row,) = rows_of(open_source(str(tmp_path)))
    assert isinstance(row, Reject)
