"""A lease on a folder in storage: one driver at a time trains a run, and the error of another one names it.

The holder writes `lease/NUMBER.json` and renews it with a heartbeat. Whoever takes over writes the next number; storage
lets one of several writers succeed (`Location.write_new`), and the holder of a smaller number has lost. Clocks are not
compared: a lease is stale if the waiting process sees no new heartbeat for STALE_S seconds of its own clock. A holder
on the same machine that no longer runs is replaced at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import getpass
import json
import os
import pathlib
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from cluster.errors import RunError, StorageError
from cluster.storage.location import Location, open_uri
from textscanner.errors import UserError

LEASE_NAME = "lease"
HEARTBEAT_S = 10.0
STALE_S = 45.0  # four heartbeats and the time of a slow request
MAX_LEASE_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True)
class Holder:
    """A process that holds a lease.

    Attributes:
      user, host: who and where, for messages.
      boot: identifies the machine and its start, so that `pid` means something; empty if unknown.
      pid: process id.
      started: when the process started, seconds since the epoch by its machine's clock: process ids are used again.
      since: when it took the lease, for messages.
      token: random, so that no two entries are equal: storage takes a writer that repeats a request for the winner.
    """

    user: str
    host: str
    boot: str
    pid: int
    started: float
    since: str
    token: str = ""

    @staticmethod
    def of_this_process() -> Holder:
        """This process, taking a lease now."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        pid = os.getpid()
        started = psutil.Process(pid).create_time()
        return Holder(_user(), socket.gethostname(), _boot_id(), pid, started, now, uuid.uuid4().hex)

    @property
    def has_ended(self) -> bool:
        """Whether it ran on this machine and does not any more. Never true for another machine's process."""
        if not self.boot or self.boot != _boot_id():
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) > 1.0
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False

    def __str__(self) -> str:
        return f"{self.user} on {self.host} (process {self.pid}) since {self.since}"


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A lease file: its number, who wrote it, and how often it was renewed. `holder` is None if it was given back."""

    number: int
    holder: Holder | None
    heartbeat: int


class Lease:
    """A lease that this process holds, until `release` or until another process takes it.

    Attributes:
      lost: whether another process has taken it.
    """

    def __init__(self, location: Location, number: int, holder: Holder, on_loss: Callable[[], None]) -> None:
        self._location, self._number, self._holder, self._on_loss = location, number, holder, on_loss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self.lost = False
        self._thread.start()

    def release(self) -> None:
        """Gives the lease back, so that the next driver need not wait."""
        self._ended.set()
        self._thread.join()
        if not self.lost:
            with contextlib.suppress(StorageError):  # the next driver then finds it stale, or its process ended
                self._location.join(_file_name(self._number)).write_bytes(_encode(None, 0))

    def _renew(self) -> None:
        heartbeat = 0
        while not self._ended.wait(HEARTBEAT_S):
            heartbeat += 1
            # While storage does not answer, nobody else can take the lease either, or see that it is stale.
            with contextlib.suppress(StorageError):
                if _newest_number(self._location) > self._number:
                    self.lost = True
                    self._on_loss()
                    return
                self._location.join(_file_name(self._number)).write_bytes(_encode(self._holder, heartbeat))


@contextlib.contextmanager
def hold_lease(folder_uri: str, on_loss: Callable[[], None], announce: Callable[[str], None]) -> Iterator[Lease]:
    """Holds the lease on a folder for the block.

    Args:
      folder_uri: the folder, for example of a run.
      on_loss: called once, from a thread, when another process has taken the lease.
      announce: called with one line when this process waits for another one's lease, or takes it over.

    Raises:
      UserError: another process holds the lease and renews it.
      StorageError: storage refuses or does not answer.
    """
    location = open_uri(folder_uri).join(LEASE_NAME)
    lease = _acquire(location, folder_uri, on_loss, announce)
    try:
        yield lease
    finally:
        lease.release()


@contextlib.contextmanager
def exclusive(folder_uri: str) -> Iterator[None]:
    """Holds the lease on a folder for the block, in a driver: losing it ends the block.

    Raises:
      UserError, StorageError: as `hold_lease`.
      RunError: another process took the lease.
    """
    lease: Lease | None = None
    try:
        with hold_lease(folder_uri, _interrupt, lambda line: print(line, file=sys.stderr, flush=True)) as lease:
            yield
    except KeyboardInterrupt:
        if lease is not None and lease.lost:
            raise RunError(f"another process took over {folder_uri}; this one has stopped") from None
        raise


def _interrupt() -> None:
    """Raises KeyboardInterrupt in the main thread, which waits for Ray."""
    os.kill(os.getpid(), signal.SIGINT)


def _acquire(
    location: Location, folder_uri: str, on_loss: Callable[[], None], announce: Callable[[str], None]
) -> Lease:
    holder = Holder.of_this_process()
    while True:
        entry = _newest(location)
        if entry.holder is not None:
            _wait_until_stale(location, entry, folder_uri, announce)
        number = entry.number + 1
        # The newest number is read again: a slow writer may create one that was deleted meanwhile.
        if location.join(_file_name(number)).write_new(_encode(holder, 0)) and _newest_number(location) == number:
            _delete_older(location, number)
            return Lease(location, number, holder, on_loss)


def _wait_until_stale(location: Location, entry: _Entry, folder_uri: str, announce: Callable[[str], None]) -> None:
    """Returns once an entry's holder has ended or shown no heartbeat for STALE_S.

    Raises:
      UserError: it is alive.
    """
    assert entry.holder is not None
    if entry.holder.has_ended:
        return
    announce(f"{folder_uri} is held by {entry.holder}: waiting up to {STALE_S:.0f} s for a sign of life")
    end_s = time.monotonic() + STALE_S
    while time.monotonic() < end_s:
        time.sleep(min(1.0, HEARTBEAT_S / 4))
        newest = _newest(location)
        if newest.holder is None:
            return
        if newest != entry:
            raise UserError(
                f"{folder_uri} is in use by {newest.holder}: stop that process, or choose another name. Two processes "
                "would overwrite each other's checkpoints"
            )
    announce(f"no sign of life from {entry.holder}: taking over")


def _newest(location: Location) -> _Entry:
    """The entry with the largest number; number 0 without a holder if there is none."""
    number = _newest_number(location)
    if not number:
        return _Entry(0, None, 0)
    return _decode(number, location.join(_file_name(number)).read_at_most(MAX_LEASE_BYTES))


def _newest_number(location: Location) -> int:
    return max((number for name, _ in location.names() if (number := _number(name))), default=0)


def _delete_older(location: Location, number: int) -> None:
    for name, _ in location.names():
        if 0 < _number(name) < number:
            location.join(name).delete()


def _file_name(number: int) -> str:
    return f"{number:08d}.json"


def _number(name: str) -> int:
    """The number of a lease file; 0 for any other file."""
    stem = name.removesuffix(".json")
    return int(stem) if stem != name and stem.isascii() and stem.isdigit() else 0


def _encode(holder: Holder | None, heartbeat: int) -> bytes:
    values = {"holder": dataclasses.asdict(holder) if holder else None, "heartbeat": heartbeat}
    return json.dumps(values).encode()


def _decode(number: int, content: bytes) -> _Entry:
    """A damaged file counts as an unknown holder's: it is waited for, not trusted."""
    try:
        values: dict[str, Any] = json.loads(content)
        holder = Holder(**values["holder"]) if values["holder"] else None
        return _Entry(number, holder, int(values["heartbeat"]))
    except (ValueError, KeyError, TypeError):
        return _Entry(number, Holder("an unknown user", "an unknown host", "", 0, 0.0, "an unknown time"), 0)


def _boot_id() -> str:
    """Identifies this start of this machine (in a container, its host's); empty where the system does not tell."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Process ids are those of a namespace: two containers of a host have the same boot id.
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
