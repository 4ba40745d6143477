"""Label files: what is taken, and why the rest is not."""

import json
import zipfile

import cv2
import numpy as np
import pytest

from textscanner.annotations import Label, Reject, open_source, read_labels, to_record

PIXELS = cv2.imencode(".png", np.full((20, 40, 3), 90, np.uint8))[1].tobytes()
BOXES = [[0, 0, 10, 20], [12, 0, 10, 20]]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(PIXELS)
    (tmp_path / "b.png").write_bytes(PIXELS)
    (tmp_path / "broken.png").write_bytes(PIXELS[:30])
    (tmp_path / "empty.png").write_bytes(b"")
    return tmp_path


def rows(folder, split=None):
    return list(read_labels(open_source(str(folder)), str(folder), split))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"file": "a.png", "text": " "}, "empty_label"),
        ({"file": "a.png", "text": "x" * 9}, "too_long"),
        ({"file": "none.png", "text": "ab"}, "missing_image"),
        ({"file": "broken.png", "text": "ab"}, "broken_image"),
        ({"file": "empty.png", "text": "ab"}, "broken_image"),
        ({"file": "a.png", "text": "abc", "boxes": BOXES}, "box_count"),
        ({"file": "a.png", "text": "ab", "boxes": [[0, 0, 10, 20], [30, 0, 15, 20]]}, "box_outside"),
        ({"file": "a.png", "text": "ab", "boxes": [[0, 0, 10, 20], [12, 5, 0, 5]]}, "box_outside"),
        ({"text": "ab"}, "bad_row"),
        ({"file": "a.png", "text": "ab", "boxes": "none"}, "bad_row"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(folder, row, reason):
    (folder / "labels.jsonl").write_text(json.dumps(row))
    (label,) = rows(folder)
    found = label if isinstance(label, Reject) else to_record(label, open_source(str(folder)), max_length=8)
    assert isinstance(found, Reject) and found.reason == reason


def test_boxes_become_quads_cut_to_the_image(folder):
    label = Label("a.png", "ab", boxes=((-1.5, 0, 10, 20), (30, -1, 11, 22)))
    record = to_record(label, open_source(str(folder)))
    np.testing.assert_allclose(record.quads[0], [[0, 0], [8.5, 0], [8.5, 20], [0, 20]])
    np.testing.assert_allclose(record.quads[1], [[30, 0], [40, 0], [40, 20], [30, 20]])


def test_tables_with_and_without_a_header(folder):
    (folder / "labels.tsv").write_text('file\ttext\na.png\tsay "hi"\nb.png\tb,c\nalone\n')
    found = rows(folder)
    assert found[:2] == [Label("a.png", 'say "hi"'), Label("b.png", "b,c")]
    assert found[2].reason == "bad_row"
    (folder / "labels.tsv").unlink()
    (folder / "labels.csv").write_text('a.png,"b,c"\n')
    assert rows(folder) == [Label("a.png", "b,c")]


def test_splits_are_kept_apart_and_a_zip_is_a_folder(folder, tmp_path_factory):
    lines = [{"file": "a.png", "text": "ab", "split": "train"}, {"file": "b.png", "text": "cd", "split": "val"}]
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [row.text for row in rows(folder, "val")] == ["cd"]
    archive = tmp_path_factory.mktemp("zip") / "words.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*"):
            file.write(path, path.relative_to(folder))
    assert rows(archive) == rows(folder)
    for label in rows(folder):
        a, b = (to_record(label, open_source(str(s))) for s in (folder, archive))
        assert (a.image, a.text) == (b.image, b.text)


def test_sources_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"holds none of labels\.jsonl"):
        rows(tmp_path)
    (tmp_path / "x.zip").write_text("no zip")
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        open_source(str(tmp_path / "x.zip"))
