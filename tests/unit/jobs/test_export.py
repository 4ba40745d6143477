"""`textscanner export` on the command line."""

import pathlib

import cv2
import numpy as np
import pytest

from jobs.export import EXAMPLE, _print_example, main
from tests.factories import write_dataset


def test_a_useless_calibration_fails_the_check(overfitted, tmp_path, capsys):
    known = write_dataset(str(tmp_path / "known"), overfitted.words)
    blank = tmp_path / "blank"
    blank.mkdir()
    cv2.imwrite(str(blank / "0.png"), np.full((32, 128, 3), 127, np.uint8))
    arguments = [overfitted.checkpoint, "--format", "onnx", "--int8", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--calibrate", str(blank), "--check", known]) == 1
    output = capsys.readouterr()
    assert "sure of differ: --max-different is 5" in output.err
    assert f"{known}: {len(overfitted.words)} images" in output.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "onnx", "--int8", "--calibrate", "EMPTY"], "which holds no image"),
        (["--format", "onnx", "--calibrate", "EMPTY"], "--calibrate is for --int8"),
        (["--format", "litert", "--fp16-weights"], "--fp16-weights and --int8 are for onnx"),
    ],
)
def test_impossible_combinations_are_refused(flags, message, overfitted, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = [str(empty) if flag == "EMPTY" else flag for flag in flags]
    assert main([overfitted.checkpoint, "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_example_is_named_where_it_exists_only(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(pathlib.Path(__file__).parents[3])
    _print_example(tmp_path / "model.onnx")
    assert capsys.readouterr().out == f"next: python {EXAMPLE} {tmp_path}/model.onnx YOUR_WORD_IMAGE\n"
    monkeypatch.chdir(tmp_path)
    _print_example(tmp_path / "model.onnx")
    assert capsys.readouterr().out == ""
