"""A lease on a folder: one holder, its loss, and when another process may take over."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from cluster.errors import RunError
from cluster.storage import lease
from cluster.storage.lease import Holder, exclusive, hold_lease
from textscanner.errors import UserError


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    return str(tmp_path / "run") if request.param == "disk" else request.getfixturevalue("bucket")


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(lease, "STALE_S", 1.0)


def ignore(*_):
    pass


def write_holder(folder, number, **changes):
    """The lease file of another process; by default on another machine."""
    holder = dataclasses.replace(Holder.of_this_process(), **({"boot": "another", "host": "elsewhere"} | changes))
    entry = lease.open_uri(folder).join(lease.LEASE_NAME, f"{number:08d}.json")
    entry.write_bytes(json.dumps({"holder": dataclasses.asdict(holder), "heartbeat": 5}).encode())
    return entry


def test_a_second_process_is_told_who_holds_the_lease_and_since_when(folder, fast):
    lines = []
    with (
        hold_lease(folder, ignore, ignore),
        pytest.raises(UserError, match=rf"in use by .*\(process {os.getpid()}\) since 2"),
        hold_lease(folder, ignore, lines.append),
    ):
        pass
    assert len(lines) == 1 and "waiting up to 1 s" in lines[0]


def test_a_lease_that_was_given_back_is_taken_without_waiting(folder, fast):
    lines = []
    for _ in range(3):
        with hold_lease(folder, ignore, lines.append):
            pass
    assert not lines
    assert [name for name, _ in lease.open_uri(folder).join(lease.LEASE_NAME).names()] == ["00000003.json"]


def test_a_killed_process_of_this_machine_is_replaced_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "STALE_S", 60.0)
    code = "import os, sys; from cluster.storage.lease import hold_lease as hold\n"
    code += "hold(sys.argv[1], print, print).__enter__(); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    begin_s = time.monotonic()
    with hold_lease(str(tmp_path), ignore, ignore):
        assert time.monotonic() - begin_s < 10


def test_a_lease_without_heartbeat_is_taken_after_the_wait(folder, fast):
    write_holder(folder, 7)
    lines, begin_s = [], time.monotonic()
    with hold_lease(folder, ignore, lines.append):
        assert time.monotonic() - begin_s >= 1.0
    assert "taking over" in lines[-1] and "elsewhere" in lines[-1]


def test_the_clocks_of_machines_do_not_matter(folder, fast):
    """A holder whose clock is hours ahead or behind is alive while its heartbeat changes."""
    entry = write_holder(folder, 1, since="1999-01-01 00:00:00 UTC", started=0.0)
    content = json.loads(entry.read_bytes())
    beats = threading.Thread(
        target=lambda: [(time.sleep(0.2), entry.write_bytes(json.dumps(content | {"heartbeat": 6}).encode()))]
    )
    beats.start()
    with pytest.raises(UserError, match="since 1999"), hold_lease(folder, ignore, ignore):
        pass
    beats.join()


def test_a_holder_that_was_replaced_learns_of_it_and_leaves_the_new_lease_alone(folder, fast):
    lost = threading.Event()
    with hold_lease(folder, lost.set, ignore) as held:
        newer = write_holder(folder, 2)
        assert lost.wait(10) and held.lost
    assert json.loads(newer.read_bytes())["holder"]["host"] == "elsewhere"


def test_of_processes_that_take_over_at_once_one_wins(folder, fast, monkeypatch):
    monkeypatch.setattr(lease, "STALE_S", 4.0)  # the loser must see a heartbeat, also on a busy machine
    write_holder(folder, 1)
    winners, losers = [], []
    done = threading.Event()

    def take():
        try:
            with hold_lease(folder, ignore, ignore):
                winners.append(1)
                done.wait(20)
        except UserError:
            losers.append(1)
            done.set()

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(winners), len(losers)) == (1, 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"holder": {"pid": 1}, "heartbeat": 0}'])
def test_a_damaged_lease_is_waited_for_and_then_taken(content, folder, fast):
    lease.open_uri(folder).join(lease.LEASE_NAME, "00000001.json").write_bytes(content)
    with hold_lease(folder, ignore, ignore):
        pass


def test_losing_the_lease_ends_the_block_with_a_sentence(tmp_path, fast):
    with pytest.raises(RunError, match="another process took over"), exclusive(str(tmp_path)):
        write_holder(str(tmp_path), 2)
        time.sleep(10)


def test_an_interrupt_by_the_user_stays_an_interrupt(tmp_path, fast):
    with pytest.raises(KeyboardInterrupt), exclusive(str(tmp_path)):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    assert pathlib.Path(tmp_path, lease.LEASE_NAME, "00000001.json").exists()
