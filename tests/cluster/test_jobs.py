"""The commands that write data sets and use checkpoints, as a user types them, on a local Ray cluster."""

import csv
import dataclasses
import json
import zipfile

import cv2
import numpy as np
import pytest

from cluster.data.shards import read_manifest, read_records
from jobs.evaluate import main as evaluate_job
from jobs.label import main as label_job
from jobs.prepare import main as prepare_job
from jobs.read import main as read_job
from jobs.render import main as render_job
from tests.factories import write_dataset
from textscanner.data.schema import DATASET_MANIFEST_NAME
from textscanner.render.draw import RenderSettings, render_word
from textscanner.render.fonts import find_fonts, select

pytestmark = pytest.mark.cluster


@pytest.fixture
def folder(words, tmp_path):
    """12 good rows and one of each kind of bad row."""
    root = tmp_path / "mine"
    (root / "images").mkdir(parents=True)
    with (root / "labels.tsv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        rows.writerow(["file", "text"])
        for i, record in enumerate(words[:12]):
            (root / "images" / f"{i}.jpg").write_bytes(record.image)
            rows.writerow([f"{i}.jpg", record.text])
        (root / "images" / "broken.jpg").write_bytes(b"\xff\xd8 no image")
        rows.writerow(["broken.jpg", "word"])
        rows.writerow(["nowhere.jpg", "word"])
        rows.writerow(["1.jpg", "  "])
        rows.writerow(["2.jpg", "x" * 31])
    return root


def test_prepare_imports_valid_rows_and_lists_rejects_by_reason(ray_session, folder, words, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare_job([str(folder), "--out", str(out)]) == 0
    records = list(read_records(str(out)))
    assert [r.text for r in records] == [r.text for r in words[:12]]
    assert [r.image for r in records] == [r.image for r in words[:12]]
    assert read_manifest(str(out)).reject_counts == {
        "broken_image": 1,
        "missing_image": 1,
        "empty_label": 1,
        "too_long": 1,
    }
    listed = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert {(row["file"], row["reason"]) for row in listed} == {
        ("broken.jpg", "broken_image"),
        ("nowhere.jpg", "missing_image"),
        ("1.jpg", "empty_label"),
        ("2.jpg", "too_long"),
    }
    assert "4 rows rejected" in capsys.readouterr().out
    # The same rows out of a zip give the same bytes.
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    assert prepare_job([str(tmp_path / "mine.zip"), "--out", str(tmp_path / "out2")]) == 0
    assert read_manifest(str(tmp_path / "out2")).content_hash == read_manifest(str(out)).content_hash


def test_prepare_refuses_too_many_rejects_and_an_existing_data_set(ray_session, folder, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert prepare_job([str(folder), "--out", out, "--max-reject-share", "0.1"]) == 2
    assert "broken_image" in capsys.readouterr().err
    assert not (tmp_path / "out" / DATASET_MANIFEST_NAME).exists()
    assert prepare_job([str(folder), "--out", out]) == 0
    assert prepare_job([str(folder), "--out", out]) == 2
    error = capsys.readouterr().err
    assert "--out is" in error and "overwrite" in error
    assert prepare_job([str(folder), "--out", out, "--overwrite"]) == 0
    assert prepare_job([str(tmp_path / "nothing"), "--out", out]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_rendered_words_do_not_depend_on_the_number_of_processes(ray_session, tmp_path):
    """Over several processes and two shards; each row depends on the seed and its number alone."""
    out = str(tmp_path / "drawn")
    assert render_job(["--out", out, "--num-words", "1100", "--height-px", "32", "--seed", "3"]) == 0
    assert len(read_manifest(out).shards) == 2
    rows = list(read_records(out))
    assert len(rows) == 1100
    settings = RenderSettings(seed=3, fonts=select(find_fonts(), "train"), height_px=32)
    for number in (0, 1, 511, 512, 1023, 1024, 1099):
        alone = render_word(settings, number)
        assert (rows[number].text, rows[number].image) == (alone.text, alone.image)
        np.testing.assert_array_equal(rows[number].quads, alone.quads)


def test_evaluation_gives_the_same_scores_in_process_and_on_ray(ray_session, overfitted, words, tmp_path, capsys):
    # 32 words that the network has overfitted and 32 that it has not.
    data = write_dataset(str(tmp_path / "set"), words)
    figures = []
    for workers in ("0", "2"):
        out = tmp_path / f"figures_{workers}.json"
        assert evaluate_job([overfitted.checkpoint, f"mine={data}", "--json", str(out), "--workers", workers]) == 0
        figures.append(json.loads(out.read_text())["datasets"]["mine"])
        assert figures[-1].pop("words_per_second") > 0
    # A Ray task computes with fewer threads, so the last bits of its confidences may differ; counts are equal.
    calibration = [[tuple(b.values()) for b in f.pop("reliability")] for f in figures]
    np.testing.assert_allclose(calibration[0], calibration[1], rtol=1e-4)
    errors = [f.pop("expected_calibration_error") for f in figures]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)
    assert figures[0] == figures[1]
    assert figures[0]["num_words"] == 64
    assert 0.5 <= figures[0]["word_accuracy"] < 0.9
    assert {"one_minus_ned", "char_accuracy", "length_accuracy"} <= figures[0].keys()
    assert "mine" in capsys.readouterr().out


def test_evaluation_of_a_labelled_folder_counts_broken_images_as_misread(overfitted, folder, tmp_path):
    out = tmp_path / "figures.json"
    assert evaluate_job([overfitted.checkpoint, str(folder), "--json", str(out)]) == 0
    figures = json.loads(out.read_text())["datasets"][str(folder)]
    # 12 known words, a broken image, a missing one and a wrong label. The empty label is skipped.
    assert (figures["num_words"], figures["num_broken"], figures["num_skipped"]) == (15, 2, 1)
    assert figures["word_accuracy"] == pytest.approx(12 / 15)


def test_evaluation_names_the_checkpoint_data_set_or_shard_that_is_wrong(
    ray_session, overfitted, words, tmp_path, capsys
):
    data = write_dataset(str(tmp_path / "set"), words)
    assert evaluate_job([str(tmp_path), data]) == 2
    assert "holds no complete checkpoint" in capsys.readouterr().err
    assert evaluate_job([overfitted.checkpoint, str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "set" / "shard-00001.parquet").write_bytes(b"PAR1 no shard PAR1")
    for workers in ("0", "2"):
        assert evaluate_job([overfitted.checkpoint, data, "--workers", workers]) == 2
        assert "shard-00001.parquet" in capsys.readouterr().err


def test_read_prints_texts_and_positions_and_draws_overlays(overfitted, folder, tmp_path, capsys):
    assert (
        read_job(
            [
                str(folder / "images"),
                "--checkpoint",
                overfitted.checkpoint,
                "--json",
                "--overlay",
                str(tmp_path / "drawn"),
            ]
        )
        == 1
    )
    output = capsys.readouterr()
    assert "broken.jpg" in output.err
    rows = {row["file"].rsplit("/", 1)[1]: row for row in map(json.loads, output.out.splitlines())}
    assert {name: row["text"] for name, row in rows.items()} == {
        f"{i}.jpg": record.text.lower() for i, record in enumerate(overfitted.words[:12])
    }
    row = rows["3.jpg"]
    assert len(row["characters"]) == len(row["text"]) and 0 < row["confidence"] <= 1
    positions = [character["x_px"] for character in row["characters"]]
    assert positions == sorted(positions)
    drawn = cv2.imread(str(tmp_path / "drawn" / "3.png"))
    assert drawn is not None and drawn.shape[0] > 240
    assert read_job([str(folder / "images" / "3.jpg"), "--checkpoint", overfitted.checkpoint]) == 0
    assert f"\t{row['text']}\t" in capsys.readouterr().out
    assert read_job([str(tmp_path / "none.jpg"), "--checkpoint", overfitted.checkpoint]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_label_adds_quads_where_the_reading_equals_the_label(ray_session, overfitted, words, tmp_path, capsys):
    bare = [dataclasses.replace(record, quads=None) for record in words[:32]]
    wrong = [dataclasses.replace(record, text="zz", quads=None) for record in words[:8]]
    source = write_dataset(str(tmp_path / "bare"), [*bare, *wrong, *words[32:36]])
    arguments = [overfitted.checkpoint, source, "--out", str(tmp_path / "out"), "--min-confidence", "0.2"]
    assert label_job(arguments) == 0
    output = capsys.readouterr().out
    rows = list(read_records(str(tmp_path / "out")))
    assert [row.text for row in rows] == [row.text for row in (*bare, *wrong, *words[32:36])]
    labelled = sum(row.quads is not None for row in rows[:32])
    assert labelled > 25 and f"{labelled} words labelled, 4 had quads, {40 - labelled} kept without quads" in output
    assert all(row.quads is None for row in rows[32:40])
    for row, known in zip(rows[40:], words[32:36], strict=True):
        np.testing.assert_array_equal(row.quads, known.quads)
    assert (tmp_path / "out" / "samples.png").exists()
    assert label_job(arguments) == 2
    assert "already holds a data set" in capsys.readouterr().err
    only_labelled = [*arguments[:3], str(tmp_path / "alone"), "--only-labelled"]
    assert label_job(only_labelled) == 0
    assert all(row.quads is not None for row in read_records(str(tmp_path / "alone")))
    assert label_job([*arguments[:3], str(tmp_path / "none"), "--min-confidence", "2"]) == 2
    assert "--min-confidence is 2.0" in capsys.readouterr().err


def test_evaluation_analyses_errors_and_draws_mistakes(overfitted, words, tmp_path, capsys):
    data = write_dataset(str(tmp_path / "set"), words)
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text(words[0].text)
    plain, with_lexicon = tmp_path / "plain.json", tmp_path / "lexicon.json"
    assert (
        evaluate_job(
            [overfitted.checkpoint, f"d={data}", "--json", str(plain), "--mistakes-png", str(tmp_path / "e.png")]
        )
        == 0
    )
    output = capsys.readouterr().out
    assert "by length" in output and "confused" in output
    assert cv2.imread(str(tmp_path / "e.png")).shape[1] > 500
    assert (
        evaluate_job([overfitted.checkpoint, f"d={data}", "--json", str(with_lexicon), "--lexicon", str(lexicon)]) == 0
    )
    free, closed = (json.loads(path.read_text())["datasets"]["d"] for path in (plain, with_lexicon))
    same = sum(record.text.lower() == words[0].text.lower() for record in words)
    assert closed["word_accuracy"] == pytest.approx(same / 64) and same < 64 * free["word_accuracy"]
    assert sum(row["words"] for row in free["by_length"]) == free["num_words"] == 64
    assert free["confusions"] and 0 <= free["expected_calibration_error"] <= 1
    assert evaluate_job([overfitted.checkpoint, data, "--baseline", "nobody"]) == 2
    assert "--baseline is 'nobody': must be one of rapidocr, tesseract" in capsys.readouterr().err
