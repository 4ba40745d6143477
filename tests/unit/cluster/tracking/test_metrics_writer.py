"""metrics.jsonl and images of a run on a local disk; a run in a bucket is tested in tests/storage."""

import json

import cv2
import numpy as np

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


def test_images_are_written_as_png(tmp_path):
    writer = MetricsWriter(str(tmp_path), 0)
    writer.image(7, np.full((4, 6, 3), (255, 0, 0), np.uint8))
    writer.close()
    image = cv2.imread(str(tmp_path / IMAGES_NAME / "step_00000007.png"))
    assert image.shape == (4, 6, 3) and image[0, 0].tolist() == [0, 0, 255]  # OpenCV reads BGR
