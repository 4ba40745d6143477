"""Folders that no other user of the machine can write to.

On a shared machine, whoever guesses the path of a folder below the temporary directory can create it first and plant
files or symbolic links in it. So a folder is used only if this user or root owns it, and nobody else can write to it.
"""

from __future__ import annotations

import os
import pathlib
import stat
import tempfile

from textscanner.errors import UserError

ROOT_USER = 0
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_private(folder: pathlib.Path) -> bool:
    """Whether only this user or root can change what is in the folder, and what the folder's name points at."""
    try:
        entry, target = folder.lstat(), folder.stat()
    except OSError:
        return False
    owners = {entry.st_uid, target.st_uid}
    return (
        owners <= {os.getuid(), ROOT_USER} and stat.S_ISDIR(target.st_mode) and not target.st_mode & WRITABLE_BY_OTHERS
    )


def is_own(folder: pathlib.Path) -> bool:
    """Whether this user created the folder: a folder, not a link to one."""
    entry = folder.lstat()
    return stat.S_ISDIR(entry.st_mode) and entry.st_uid == os.getuid()


def create_own(folder: pathlib.Path) -> bool:
    """Creates a folder if it does not exist; returns whether nobody else has created it.

    A folder that this call has created needs no check: file systems that map user ids (NFS with root_squash, CIFS) name
    another owner.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        return is_own(folder)
    return True


def user_name() -> str:
    """The name of this user's folder in a place that several users share."""
    return f"textscanner-{os.getuid()}"


def temporary_folder(name: str) -> pathlib.Path:
    """A folder that all processes of this user on this node share; created if it does not exist.

    Raises:
      UserError: another user has created it.
    """
    folder = pathlib.Path(tempfile.gettempdir()) / user_name()
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_own(folder):
        raise UserError(f"{folder} belongs to another user, or is a link: remove it, or set TMPDIR to another folder")
    folder.chmod(0o700)
    (folder / name).mkdir(exist_ok=True)
    return folder / name
