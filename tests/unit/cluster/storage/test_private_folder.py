"""Folders on a machine that several users share."""

import os
import pathlib
import stat
import tempfile

import pytest

from cluster.storage.location import fetch_file
from cluster.storage.private_folder import create_own, is_own, is_private, temporary_folder
from textscanner.errors import UserError


@pytest.fixture
def another_user(monkeypatch):
    """What this process creates before it calls this belongs to another user, who is not root."""

    def become():
        monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
        monkeypatch.setattr("cluster.storage.private_folder.ROOT_USER", -1)

    return become


@pytest.mark.parametrize(("mode", "private"), [(0o700, True), (0o755, True), (0o775, False), (0o1777, False)])
def test_a_folder_that_others_can_write_to_is_not_private(tmp_path, mode, private):
    tmp_path.chmod(mode)
    assert is_private(tmp_path) == private


def test_a_folder_or_link_of_another_user_is_not_private(tmp_path, another_user):
    (tmp_path / "link").symlink_to(tmp_path)
    assert is_private(tmp_path) and is_private(tmp_path / "link")
    assert is_own(tmp_path) and not is_own(tmp_path / "link")
    assert not is_private(tmp_path / "nothing")
    another_user()
    assert not is_private(tmp_path) and not is_private(tmp_path / "link") and not is_own(tmp_path)


def test_a_folder_that_this_process_creates_needs_no_owner(tmp_path, another_user):
    """NFS with root_squash and CIFS name another one."""
    another_user()
    folder = tmp_path / "new"
    assert create_own(folder) and folder.is_dir()
    assert not create_own(folder)  # by now, anyone may have created it


@pytest.fixture
def shared_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_temporary_folder_is_the_users_alone(shared_machine):
    folder = temporary_folder("copies")
    assert folder.parent.parent == shared_machine and str(os.getuid()) in folder.parent.name
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    folder.parent.chmod(0o777)
    assert temporary_folder("copies") == folder
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_planted_temporary_folder_is_refused(shared_machine, another_user, monkeypatch):
    another_user()
    (shared_machine / f"textscanner-{os.getuid()}").mkdir()
    with pytest.raises(UserError, match="belongs to another user, or is a link: remove it, or set TMPDIR"):
        temporary_folder("copies")


def test_a_planted_link_is_refused(shared_machine):
    (shared_machine / "victim").mkdir()
    (shared_machine / f"textscanner-{os.getuid()}").symlink_to(shared_machine / "victim")
    with pytest.raises(UserError, match="is a link"):
        temporary_folder("copies")
    assert list((shared_machine / "victim").iterdir()) == []


def test_copies_of_objects_are_not_taken_from_a_folder_that_anyone_can_create(shared_machine, bucket):
    """Another user knows the object's URI and version, and plants a copy where this user will look for one."""
    from cluster.storage.location import open_uri

    uri = f"{bucket}/data.mdb"
    open_uri(uri).write_bytes(b"content")
    path = pathlib.Path(fetch_file(uri))
    assert path.read_bytes() == b"content"
    assert path.parent.parent == shared_machine / f"textscanner-{os.getuid()}"
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
