"""The table of formats: every format is detected, opened by its name, and documented."""

import importlib
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from cluster.data.importers.registry import FORMAT_NAMES, FORMATS, FORMATS_WITH_SPLITS, open_source
from tests import formats
from textscanner.data.annotations import to_record
from textscanner.errors import UserError

ROOT = pathlib.Path(__file__).parents[5]
SCENES = ("svt", "synthtext")


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_format_is_detected_and_read_with_its_quads(name, seven_words, tmp_path):
    write, format_name, with_quads = formats.FORMATS[name]
    write(tmp_path, seven_words)
    detected, named = (formats.read_all(open_source(str(tmp_path), f)) for f in ("auto", format_name))
    assert [row.source for row in detected] == [row.source for row in named]
    originals = seven_words
    if name == "trdg":  # read in alphabetical order of the names
        originals = sorted(seven_words, key=lambda r: f"{r.text}_{seven_words.index(r)}.jpg")
    records = [to_record(row) for row in detected]
    assert [r.text for r in records] == [r.text for r in originals]
    if name not in SCENES:
        assert [r.image for r in records] == [r.image for r in originals]
    for record, original in zip(records, originals, strict=True):
        assert (record.quads is not None) == with_quads
        if with_quads and name != "synthtext":
            corners = formats.boxes_of(original)
            np.testing.assert_allclose(record.quads[:, 0], corners[:, :2])
            np.testing.assert_allclose(record.quads[:, 2], corners[:, 2:])


@pytest.mark.parametrize(
    "name", [n for n, (_, format_name, _) in formats.FORMATS.items() if format_name != "webdataset"]
)
def test_count_is_the_number_of_rows(name, seven_words, tmp_path):
    formats.FORMATS[name][0](tmp_path, seven_words)
    source = open_source(str(tmp_path))
    assert source.count() == len(seven_words) == len(formats.read_all(source))


def test_splits_select_rows_or_files(seven_words, tmp_path):
    lines = [{"file": f"{i}.jpg", "text": "ab", "split": "val" if i == 2 else "train"} for i in range(4)]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [row.source for row in formats.read_all(open_source(str(tmp_path), split="val"))] == ["2.jpg"]
    formats.parquet(tmp_path / "parquet", seven_words)
    assert open_source(str(tmp_path / "parquet"), split="train").count() == len(seven_words)
    with pytest.raises(UserError, match=r"no \.parquet file of split 'test'"):
        open_source(str(tmp_path / "parquet"), split="test").count()
    formats.svt(tmp_path / "svt", seven_words)
    assert open_source(str(tmp_path / "svt"), split="train").count() == len(seven_words)
    with pytest.raises(UserError, match=r"has no test\.xml"):
        open_source(str(tmp_path / "svt"), split="test")


def test_a_split_of_a_format_without_splits_is_refused(seven_words, tmp_path):
    formats.tsv(tmp_path, seven_words)
    with pytest.raises(UserError, match="the format tsv has no splits, only jsonl, iiit5k, svt, parquet do"):
        open_source(str(tmp_path), split="train")


@pytest.mark.parametrize(
    ("file", "content", "format_name"),
    [
        ("mine.txt", 'a.png, "b"\n', "icdar"),
        ("mine.txt", "a.png\tb\n", "paddleocr"),
        ("mine.csv", "filename,words\na.png,b\n", "easyocr"),
        ("mine.csv", "a.png,b\n", "csv"),
        ("mine.jsonl", '{"file": "a.png", "text": "b"}\n', "jsonl"),
        ("mine", '{"file": "a.png", "text": "b"}\n', "jsonl"),
        ("sub/labels.tsv", "a.png\tb\n", "tsv"),
    ],
)
def test_a_label_file_of_any_name_is_detected_by_its_first_line(file, content, format_name, tmp_path):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    source = open_source(str(tmp_path), label_file=file)
    assert type(source).__name__ == FORMATS[format_name].reader.partition(":")[2]
    assert [(row.source, row.text) for row in formats.read_all(source)] == [("a.png", "b")]


def test_sources_that_cannot_be_read_are_user_errors(seven_words, tmp_path):
    def assert_refused(match, *args, **options):
        with pytest.raises(UserError, match=match):
            formats.read_all(open_source(*args, **options))

    assert_refused("does not exist", str(tmp_path / "none"))
    assert_refused("holds no labelled images in a known format. It holds no files", str(tmp_path))
    assert_refused("format is 'xls'", str(tmp_path), "xls")
    assert_refused(r"has no labels\.tsv", str(tmp_path), "tsv")
    (tmp_path / "x.zip").write_text("no zip")
    assert_refused("is not a valid zip", str(tmp_path / "x.zip"))
    for name in ("gt.mat", "labels.json", "train.xml", "data.mdb", "x.parquet"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_bytes(b"nothing that anybody could read" * 300)
        assert_refused(name, str(folder))
    (tmp_path / "labels.tsv").write_bytes("a.png\tcafé".encode("latin-1"))
    assert_refused("labels.tsv is not UTF-8", str(tmp_path))


@pytest.mark.parametrize("format_", FORMATS.values(), ids=lambda f: f.name)
def test_every_reader_of_the_table_is_a_source(format_):
    module, _, name = format_.reader.partition(":")
    reader = getattr(importlib.import_module(f"cluster.data.importers.{module}"), name)
    assert all(callable(getattr(reader, method)) for method in ("count", "version", "parts", "read"))
    assert format_.label_files or format_.suffixes


def test_every_format_is_tested():
    assert {format_name for _, format_name, _ in formats.FORMATS.values()} == set(FORMATS)


def test_documentation_lists_exactly_the_formats_of_the_table():
    table = (ROOT / "docs" / "data.md").read_text().partition("| format |")[2].partition("\n\n")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    documented = re.findall(r"`(\w+)`", " ".join(first_cells))
    assert sorted(documented) == sorted(FORMATS)


def test_format_names_can_be_listed_without_loading_a_reader():
    assert FORMAT_NAMES[0] == "auto" and set(FORMATS_WITH_SPLITS) < set(FORMATS)
    heavy = "{'numpy', 'pyarrow', 'cv2', 'ray', 'boto3', 'lmdb', 'scipy'}"
    # jobs.prepare imports it for the defaults of its flags, and through it the table.
    code = f"import sys, cluster.data.prepare_settings; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
