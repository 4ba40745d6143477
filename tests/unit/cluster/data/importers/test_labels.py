"""Label files: which rows are read, and which are counted as bad."""

import json

import pytest

from cluster.data.importers.registry import open_source
from tests import formats
from textscanner.data.annotations import Reject, Word


@pytest.mark.parametrize(
    ("file", "content", "texts", "bad_lines"),
    [
        ("labels.tsv", 'file\ttext\na.png\tsay "hi"\nb.png\tb,c\nalone\n', ['say "hi"', "b,c"], ["line 4"]),
        ("labels.csv", 'a.png,"b,c"\n', ["b,c"], []),
        ("labels.csv", 'filename,words\na.png,b,"c"\nalone\n', ['b,"c"'], ["line 3"]),
        ("gt.txt", '\ufeffa.png, "say \\"hi\\", you"\nb.png, nothing\n', ['say "hi", you'], ["line 2"]),
        ("rec_gt.txt", '["a.png", "b.png"]\tone\nc.png\t[{"transcription": "x"}]\n', ["one", "one"], ["line 2"]),
        ("labels.json", '{"a.png": "é", "b.png": 7}', ["é"], ["b.png"]),
        ("labels.txt", "0.jpg two words\nalone\n", ["two words"], ["line 2"]),
        ("labels.csv", 'a.png,b\n"' + "x" * 200_000 + "\n" + "c.png,d\n", ["b", "d"], ["line 2"]),
        ("labels.csv", 'a.png,b\nb.png,"c\nc.png,d\nd.png,e\n', ["b", "d", "e"], ["line 2"]),
        ("labels.csv", 'a.png,"b\nb.png,c\nc.png,d"\nd.png,"e"\n', ["c", 'd"', "e"], ["line 1"]),
        ("labels.csv", 'a.png,"b\nc"\nb.png,d\n', ["d"], ["line 1", "line 2"]),
        ("labels.csv", 'a.png,"b"c\n\nb.png,"say ""hi"""\n', ['say "hi"'], ["line 1"]),
        ("labels.jsonl", '{"file": "a", "text": "b", "boxes": [[' + "1" * 400 + ", 1, 1, 1]]}", [], ["line 1"]),
        ("labels.jsonl", "[" * 100_000, [], ["line 1"]),
        ("labels.jsonl", '{"text": "ab"}\n\nno json\n{"file": "a", "text": "b", "boxes": "x"}', [], ["1", "3", "4"]),
    ],
)
def test_rows_of_a_label_file_are_words_or_bad_rows(file, content, texts, bad_lines, tmp_path):
    (tmp_path / file).write_text(content)
    rows = formats.read_all(open_source(str(tmp_path)))
    assert [row.text for row in rows if isinstance(row, Word)] == texts
    rejects = [row for row in rows if isinstance(row, Reject)]
    assert len(rejects) == len(bad_lines)
    assert all(line in reject.file for line, reject in zip(bad_lines, rejects, strict=True))
    assert {row.reason for row in rejects} <= {"bad_row"}


def read_row(folder, **row):
    (folder / "labels.jsonl").write_text(json.dumps({"file": "a.png"} | row))
    (word,) = formats.read_all(open_source(str(folder)))
    return word


def test_a_cased_label_is_the_label_and_its_case_is_known(tmp_path):
    word = read_row(tmp_path, text="HOTEL", text_cased="Hotel", boxes=[[i, 0, 1, 1] for i in range(5)])
    assert (word.text, word.case_known, len(word.quads)) == ("Hotel", True, 5)


@pytest.mark.parametrize("text_cased", ["Hotel!", "(Hotel)"])
def test_boxes_are_left_out_if_the_cased_label_has_another_length(text_cased, tmp_path):
    word = read_row(tmp_path, text="HOTEL", text_cased=text_cased, boxes=[[i, 0, 1, 1] for i in range(5)])
    assert (word.text, word.case_known, word.quads) == (text_cased, True, None)


def test_lengths_are_compared_as_labels_are_stored(tmp_path):
    """Surrounding white space and decomposed accents are no characters of a label."""
    word = read_row(tmp_path, text="CAFE", text_cased=" Cafe\N{COMBINING ACUTE ACCENT} ", boxes=[[0, 0, 1, 1]] * 4)
    assert len(word.quads) == 4


@pytest.mark.parametrize("text_cased", ["Hostel", "Hotel Bristol"])
def test_a_cased_label_with_other_letters_does_not_replace_what_is_scored(text_cased, tmp_path):
    word = read_row(tmp_path, text="HOTEL", text_cased=text_cased, boxes=[[i, 0, 1, 1] for i in range(5)])
    assert (word.text, word.case_known, len(word.quads)) == ("HOTEL", False, 5)


def test_a_row_without_a_cased_label_leaves_its_case_to_the_import(tmp_path):
    word = read_row(tmp_path, text="HOTEL")
    assert (word.text, word.case_known) == ("HOTEL", None)


def test_a_box_file_that_cannot_be_parsed_is_a_wrong_number_of_boxes(seven_words, tmp_path):
    formats.trdg(tmp_path, seven_words)
    damaged = sorted(tmp_path.glob("*_boxes.txt"))[0]
    damaged.write_text("1 2 three 4\n")
    rows = formats.read_all(open_source(str(tmp_path)))
    (row,) = [row for row in rows if damaged.name == f"{row.source.rpartition('.')[0]}_boxes.txt"]
    assert row.quads.shape == (0, 4, 2)


def test_an_image_without_a_box_file_has_no_quads(seven_words, tmp_path):
    formats.trdg(tmp_path, seven_words)
    sorted(tmp_path.glob("*_boxes.txt"))[-1].unlink()
    assert sum(row.quads is None for row in formats.read_all(open_source(str(tmp_path)))) == 1
