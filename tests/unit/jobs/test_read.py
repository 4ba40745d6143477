"""Files that `textscanner read` reads, in which order."""

import numpy as np
import pytest

from jobs import read
from textscanner.errors import UserError


@pytest.fixture
def folder(tmp_path, words):
    """Three images, one of them in a folder inside, a broken image and a text file."""
    (tmp_path / "inside").mkdir()
    for name, record in zip(("b.jpg", "a.jpg", "inside/c.JPG"), words[:3], strict=True):
        (tmp_path / name).write_bytes(record.image)
    (tmp_path / "d.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_stands_for_its_images_sorted_by_path(folder):
    paths = read._image_paths([str(folder / "b.jpg"), str(folder)])
    names = [path.relative_to(folder).as_posix() for path in paths]
    assert names == ["b.jpg", "a.jpg", "b.jpg", "d.png", "inside/c.JPG"]


def test_a_path_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.jpg does not exist"):
        read._image_paths([str(tmp_path / "none.jpg")])
    with pytest.raises(UserError, match="holds no image"):
        read._image_paths([str(tmp_path)])


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_batches_keep_the_order_and_hold_errors_of_broken_images(folder, monkeypatch, batch_size):
    monkeypatch.setattr(read, "BATCH_SIZE", batch_size)
    paths = read._image_paths([str(folder)])
    batches = list(read._image_batches(paths))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    rows = [row for batch in batches for row in batch]
    assert [path for path, _ in rows] == paths
    for path, image in rows:
        assert isinstance(image, Exception if path.name == "d.png" else np.ndarray), path
