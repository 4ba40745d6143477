"""Writes on a local disk: what is on the disk when, in which order."""

import errno
import os
import pathlib

import pytest

from cluster.storage.local_files import sync_folder
from cluster.storage.location import open_uri


@pytest.fixture
def calls(monkeypatch):
    """What is synced and published, in order: names of files without their random part, and of folders."""
    recorded = []

    def name_of(path):
        path = pathlib.Path(path)
        return "partial" if path.suffix == ".partial" else path.name

    def record(function, description):
        original = getattr(os, function)
        monkeypatch.setattr(os, function, lambda *a, **k: (recorded.append(description(*a)), original(*a, **k))[1])

    record("fsync", lambda descriptor: f"sync {name_of(os.readlink(f'/proc/self/fd/{descriptor}'))}")
    record("replace", lambda source, target: f"publish {name_of(target)}")
    record("link", lambda source, target: f"publish {name_of(target)}")
    return recorded


def write_stream(location, data):
    with location.atomic_filesystem().open_output_stream(location.path) as stream:
        stream.write(data)


@pytest.mark.parametrize(
    "write", [lambda file, data: file.write_bytes(data), lambda file, data: file.write_new(data), write_stream]
)
def test_content_is_on_the_disk_before_its_name_and_the_name_on_return(tmp_path, calls, write):
    folder = tmp_path / "folder"
    folder.mkdir()
    write(open_uri(str(folder)).join("file.bin"), b"data")
    assert (folder / "file.bin").read_bytes() == b"data"
    assert calls == ["sync partial", "publish file.bin", "sync folder"]


def test_new_folders_are_on_the_disk_too(tmp_path, calls):
    open_uri(str(tmp_path)).join("a", "b", "file.bin").write_bytes(b"data")
    assert calls == [f"sync {tmp_path.name}", "sync a", "sync partial", "publish file.bin", "sync b"]


def test_a_file_system_that_cannot_sync_folders_is_tolerated_and_a_broken_disk_is_not(tmp_path, monkeypatch):
    for number, error in ((errno.EINVAL, None), (errno.EIO, OSError)):

        def fail(descriptor, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fail)
        if error is None:
            sync_folder(tmp_path)
        else:
            with pytest.raises(error):
                sync_folder(tmp_path)
