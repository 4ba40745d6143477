"""metrics.jsonl and images of a run on a local disk; a run in a bucket is tested in tests/storage."""

import errno
import json
import os

import cv2
import numpy as np
import pytest

from cluster.tracking.metrics_writer import IMAGES_NAME, METRICS_NAME, MetricsWriter


class RecordingTracker:
    def __init__(self):
        self.values, self.closed = [], False

    def scalars(self, step, values):
        self.values.append((step, dict(values)))

    def close(self):
        self.closed = True


def steps(folder):
    return [json.loads(line)["step"] for line in (folder / METRICS_NAME).read_text().splitlines()]


def test_scalars_go_to_the_file_and_the_tracker(tmp_path):
    tracker = RecordingTracker()
    writer = MetricsWriter(str(tmp_path), 0, tracker)
    writer.scalars(1, {"train/loss": 0.5})
    writer.close()
    (line,) = (tmp_path / METRICS_NAME).read_text().splitlines()
    assert {"step": 1, "train/loss": 0.5}.items() <= json.loads(line).items()
    assert tracker.values == [(1, {"train/loss": 0.5})] and tracker.closed


def test_resuming_drops_the_lines_after_the_restored_step(tmp_path):
    writer = MetricsWriter(str(tmp_path), 0)
    for step in (1, 2, 3):
        writer.scalars(step, {"train/loss": 1.0})
    writer.close()
    resumed = MetricsWriter(str(tmp_path), 2)
    assert steps(tmp_path) == [1, 2]
    resumed.scalars(3, {"train/loss": 1.0})
    resumed.close()
    assert steps(tmp_path) == [1, 2, 3]
    MetricsWriter(str(tmp_path), 0).close()
    assert steps(tmp_path) == []


@pytest.mark.parametrize(
    "torn", [b'{"step": 2, "tra', b"{", b"\xff\xfe", b"7", b'{"loss": 1}', b'{"step": "x"}', b"\0" * 64]
)
def test_a_torn_line_is_dropped_on_resuming(tmp_path, torn):
    whole = b'{"step": 1, "train/loss": 1.0}\n'
    for content in (whole + torn, torn + b"\n" + whole):
        (tmp_path / METRICS_NAME).write_bytes(content)
        resumed = MetricsWriter(str(tmp_path), 2)
        resumed.scalars(3, {"train/loss": 1.0})
        resumed.close()
        assert steps(tmp_path) == [1, 3]


def test_a_full_disk_on_resuming_leaves_the_metrics_as_they_were(tmp_path, monkeypatch):
    before = b"".join(b'{"step": %d}\n' % step for step in (1, 2, 3))
    (tmp_path / METRICS_NAME).write_bytes(before)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)  # the last step before the new file replaces the old one
    with pytest.raises(OSError, match="No space left"):
        MetricsWriter(str(tmp_path), 2)
    assert (tmp_path / METRICS_NAME).read_bytes() == before


def test_flushed_metrics_are_on_the_disk(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    writer = MetricsWriter(str(tmp_path), 0)
    writer.scalars(1, {"train/loss": 0.5})
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    writer.flush()
    assert str(tmp_path / METRICS_NAME) in synced
    writer.close()


def test_images_are_written_as_png(tmp_path):
    writer = MetricsWriter(str(tmp_path), 0)
    writer.image(7, np.full((4, 6, 3), (255, 0, 0), np.uint8))
    writer.close()
    image = cv2.imread(str(tmp_path / IMAGES_NAME / "step_00000007.png"))
    assert image.shape == (4, 6, 3) and image[0, 0].tolist() == [0, 0, 255]  # OpenCV reads BGR
