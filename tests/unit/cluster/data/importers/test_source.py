"""The files that importers read: folders and archives from others."""

import json
import struct
import zipfile

import pytest

from cluster.data.importers import source
from cluster.data.importers.registry import open_source
from cluster.data.importers.source import inside, open_files
from tests import formats
from textscanner.data.annotations import Reject, Word
from textscanner.errors import UserError


def test_a_zip_is_read_like_a_folder(seven_words, tmp_path):
    formats.icdar_zip(tmp_path, seven_words)
    source = open_source(str(tmp_path / "ch4_training_word_images_gt.zip"))
    rows = formats.read_all(source)
    assert [(row.text, row.image) for row in rows] == [(record.text, record.image) for record in seven_words]


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "a/../../secret.jpg", "/../secret.jpg", "images/../../secret.jpg", ".."]
)
def test_a_label_file_names_no_file_outside_its_folder(seven_words, tmp_path, name):
    (tmp_path / "secret.jpg").write_bytes(seven_words[0].image)
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "labels.jsonl").write_text(json.dumps({"file": name, "text": "secret"}) + "\n")
    (row,) = formats.read_all(open_source(str(folder)))
    assert isinstance(row, Reject) and row.reason == "broken_image" and "outside the folder" in row.detail


def test_a_label_file_may_name_files_of_sibling_folders(seven_words, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "a.jpg").write_bytes(seven_words[0].image)
    (tmp_path / "labels" / "train.tsv").write_text("../crops/a.jpg\tword\n")
    (row,) = formats.read_all(open_source(str(tmp_path), "tsv", label_file="labels/train.tsv"))
    assert isinstance(row, Word) and row.image == seven_words[0].image
    assert inside("a/../b.jpg") == "b.jpg" and inside("a..b/c.jpg") == "a..b/c.jpg"


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "a/" * 600 + "a.jpg", "\ud800.jpg", "a\0b.jpg"])
def test_a_name_that_no_file_can_have_costs_only_its_row(seven_words, tmp_path, name):
    rows = [{"file": name, "text": "one"}, {"file": "a.jpg", "text": "two"}]
    (tmp_path / "a.jpg").write_bytes(seven_words[0].image)
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = formats.read_all(open_source(str(tmp_path)))
    assert isinstance(first, Reject) or first.image is None
    assert second.image == seven_words[0].image


def bomb(path, num_bytes, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.jpg", bytes(num_bytes))
        archive.writestr("labels.tsv", "a.jpg\tword\n")


def test_a_member_larger_than_the_limit_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 1 << 20)
    bomb(tmp_path / "a.zip", (1 << 20) + 1)
    (row,) = formats.read_all(open_source(str(tmp_path / "a.zip")))
    assert isinstance(row, Reject) and "a.jpg is larger than 1,048,576 bytes" in row.detail
    bomb(tmp_path / "b.zip", 1 << 20)
    assert len(open_files(str(tmp_path / "b.zip")).read("a.jpg")) == 1 << 20


def test_the_size_that_an_archive_states_is_not_believed(tmp_path, monkeypatch):
    """The directory says 10 bytes: the standard library inflates everything in one call before it counts them."""
    bomb(tmp_path / "a.zip", 64 << 20)
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(struct.pack("<I", 64 << 20), struct.pack("<I", 10)))
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 1 << 20)
    import tracemalloc

    files = open_files(str(tmp_path / "a.zip"))
    tracemalloc.start()
    try:
        assert len(files.read("a.jpg")) <= 10
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_zip_whose_offsets_are_wrong_is_damaged(tmp_path):
    """Found by tests/fuzz: zipfile seeks to before the start, an OSError."""
    bomb(tmp_path / "a.zip", 10)
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[1:])
    (row,) = formats.read_all(open_source(str(tmp_path / "a.zip")))
    assert isinstance(row, Reject) and "a.jpg cannot be unpacked" in row.detail


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_without_a_limit_are_refused(tmp_path, method):
    bomb(tmp_path / "a.zip", 10, method)
    with pytest.raises(UserError, match="only stored and deflated are read"):
        open_source(str(tmp_path / "a.zip"))


def test_an_image_file_larger_than_the_limit_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 1 << 20)
    (tmp_path / "a.jpg").write_bytes(bytes((1 << 20) + 1))
    (tmp_path / "labels.tsv").write_text("a.jpg\tword\n")
    (row,) = formats.read_all(open_source(str(tmp_path)))
    assert isinstance(row, Reject) and "is larger than 1,048,576 bytes" in row.detail


def test_a_line_without_an_end_is_refused(tmp_path):
    (tmp_path / "labels.tsv").write_text("a.jpg\tword\n" + "x" * ((1 << 20) + 10))
    with pytest.raises(UserError, match=r"labels\.tsv has a line of more than 1,048,576 characters"):
        formats.read_all(open_source(str(tmp_path)))
