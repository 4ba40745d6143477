"""Label files of every format, and the names and boxes in them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.data.importers.registry import open_source
from tests.factories import rendered_records
from tests.formats import read_all
from tests.fuzz.inputs import JSON_VALUES, NAMES, SECRET, mutated, sandbox
from textscanner.data import schema
from textscanner.data.annotations import Reject, to_record
from textscanner.errors import UserError

IMAGE = rendered_records(1)[0].image
FILES = {
    "jsonl": (
        "labels.jsonl",
        b'{"file": "a.jpg", "text": "ab", "boxes": [[1, 2, 3, 4], [5, 6, 7, 8]]}\n{"file": "b.jpg"}\n',
    ),
    "tsv": ("labels.tsv", b"file\ttext\na.jpg\tword\n"),
    "csv": ("labels.csv", b'file,text\na.jpg,"a ""word"", quoted"\n'),
    "easyocr": ("labels.csv", b"filename,words\na.jpg,word, and more\n"),
    "icdar": ("gt.txt", b'\xef\xbb\xbfa.jpg, "say \\"hi\\""\r\n'),
    "paddleocr": ("rec_gt.txt", b'["a.jpg", "b.jpg"]\tword\n'),
    "trdg": ("labels.txt", b"a.jpg two words\n"),
    "doctr": ("labels.json", '{"a.jpg": "é", "b.jpg": 7}'.encode()),
    "svt": (
        "train.xml",
        b'<?xml version="1.0" encoding="utf-8"?><tagset><image><imageName>a.jpg</imageName><taggedRectangles>'
        b'<taggedRectangle x="1" y="2" width="20" height="9"><tag>ab</tag></taggedRectangle></taggedRectangles></image>'
        b"</tagset>",
    ),
}


def import_all(uri, format_):
    """As `prepare` does: each row becomes a record or a reject that can be written, or a message ends the import."""
    try:
        rows = read_all(open_source(str(uri), format_))
    except UserError:
        return
    results = [row if isinstance(row, Reject) else to_record(row, 25) for row in rows]
    schema.to_table([result for result in results if not isinstance(result, Reject)])
    for result in results:
        if isinstance(result, Reject):
            json.dumps([result.file, result.reason, result.detail], ensure_ascii=False).encode()
        else:
            assert result.image != SECRET


@pytest.mark.parametrize("format_", FILES)
@given(st.data())
def test_any_label_file(format_, data):
    name, valid = FILES[format_]
    with sandbox() as folder:
        (folder / "a.jpg").write_bytes(IMAGE)
        (folder / name).write_bytes(data.draw(mutated(valid) | st.binary(max_size=200)))
        import_all(folder, format_)


@given(st.lists(st.tuples(NAMES, JSON_VALUES, JSON_VALUES, JSON_VALUES), min_size=1, max_size=3))
def test_any_json_row(rows):
    keys = ("file", "text", "boxes", "text_cased")
    with sandbox() as folder:
        (folder / "a.jpg").write_bytes(IMAGE)
        lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
        (folder / "labels.jsonl").write_text("\n".join(lines))
        import_all(folder, "jsonl")


@given(NAMES, st.sampled_from(["tsv", "icdar", "paddleocr", "trdg", "easyocr", "doctr", "svt"]))
def test_any_image_name(name, format_):
    file, valid = FILES[format_]
    with sandbox() as folder:
        (folder / "a.jpg").write_bytes(IMAGE)
        (folder / file).write_bytes(valid.replace(b"a.jpg", name.encode(errors="replace")))
        import_all(folder, format_)
