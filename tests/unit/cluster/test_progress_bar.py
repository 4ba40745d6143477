"""Progress in a log file: lines, few of them, and no carriage return."""

import contextlib
import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
import threading

import pytest

from cluster.progress_bar import BYTES, progress_bar


def lines_of(total, steps, unit="word"):
    stream = io.StringIO()
    with progress_bar("render", total, unit, stream=stream) as advance:
        for step in steps:
            advance(step)
    text = stream.getvalue()
    assert "\r" not in text
    return text.splitlines()


def test_a_line_is_printed_per_ten_percent():
    lines = lines_of(30_000, [1_000] * 30)
    assert lines[0] == "render 3,000/30,000 words (10 %)"
    assert lines[-1] == "render 30,000/30,000 words (100 %)"
    assert len(lines) == 10


@pytest.mark.parametrize(("total", "steps"), [(100, [1] * 100), (30_000, [7] * 5_000), (1_000, [999, 1]), (500, [250])])
def test_at_most_eleven_lines_are_printed(total, steps):
    lines = lines_of(total, steps)
    assert 1 <= len(lines) <= 11
    assert len(set(lines)) == len(lines)


def test_a_small_total_has_only_its_last_line():
    assert lines_of(5, [1] * 5, "file") == ["render 5/5 files (100 %)"]
    assert lines_of(1, [1], "file") == ["render 1/1 file (100 %)"]


def test_the_last_line_tells_what_was_done_if_it_is_less_than_expected():
    assert lines_of(200, [150])[-1] == "render 150/200 words (75 %)"
    assert lines_of(0, []) == ["render 0/0 words (0 %)"]


def test_bytes_are_megabytes():
    assert lines_of(12_345_678, [12_345_678], BYTES) == ["render 12.3/12.3 MB (100 %)"]


def test_failed_work_has_no_last_line():
    stream = io.StringIO()
    with pytest.raises(RuntimeError), progress_bar("render", 50, "word", stream=stream) as advance:
        advance(10)
        raise RuntimeError
    assert stream.getvalue() == ""


def test_a_disabled_bar_is_silent():
    stream = io.StringIO()
    with progress_bar("render", 500, "word", disable=True, stream=stream) as advance:
        advance(500)
    assert stream.getvalue() == ""


def test_threads_advance_the_same_bar():
    stream = io.StringIO()
    with progress_bar("pull", 8_000, "word", stream=stream) as advance:
        threads = [threading.Thread(target=lambda: [advance(1) for _ in range(1_000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert stream.getvalue().splitlines()[-1] == "pull 8,000/8,000 words (100 %)"


PROGRAM = """
from cluster.progress_bar import progress_bar
with progress_bar("render", 1000, "word") as advance:
    for _ in range(1000):
        advance(1)
"""


def test_a_pipe_gets_lines_and_a_terminal_gets_a_bar():
    piped = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True)
    assert b"\r" not in piped.stderr and len(piped.stderr.splitlines()) == 10
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # rows, columns
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, stderr=terminal)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal's output is an error on Linux
        while chunk := os.read(controller, 1 << 16):
            shown += chunk
    os.close(controller)
    assert b"\r" in shown and b"1000/1000" in shown
