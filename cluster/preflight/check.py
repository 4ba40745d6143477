"""Measurements -> findings: pure functions, a check each. A finding says what was found and what to do about it."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.config import WorkerConfig
from cluster.preflight.probe import Answers, Facts, Node, StorageTimes, listed

MAX_SKEW_S = 5.0  # signatures allow 15 minutes; logs of several nodes, put in order, do not
MIN_OPEN_FILES = 8192
FULL_SHARE = 0.05  # Ray takes no new objects when less of the disk is free


@dataclasses.dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
      ok: None if it does not apply or was not tried.
      found: what was measured, or what is wrong.
      remedy: what to do; empty unless it is red.
    """

    name: str
    ok: bool | None
    found: str
    remedy: str = ""


def verdict(name: str, faults: Sequence[str], fine: str, remedy: str) -> Check:
    """Red with the faults and the remedy if there are any, else green."""
    return Check(name, not faults, "; ".join(faults) or fine, remedy if faults else "")


def check_versions(facts: Answers[Facts], driver: Mapping[str, str]) -> Check:
    """Whether all nodes and the driver run the same Python, packages and source."""
    everywhere = {"driver": driver} | {label: node.versions for label, node in facts.values.items()}
    faults = facts.faults
    for package in driver:
        places = collections.defaultdict(list)
        for label, versions in everywhere.items():
            places[versions[package]].append(label)
        if len(places) > 1:
            told = ", ".join(f"{version} on {listed(labels)}" for version, labels in sorted(places.items()))
            faults.append(f"{package}: {told}")
    fine = ", ".join(f"{package} {version}" for package, version in driver.items())
    return verdict("versions", faults, fine, "start every node from the same image, and the job from the same source")


def check_gpus(train: WorkerConfig, nodes: Sequence[Node], facts: Answers[Facts]) -> Check:
    """Whether there are enough GPUs, of one kind, as many as Ray counts. Not yet run on a machine with GPUs."""
    wanted = train.workers * train.gpus_per_worker
    if not wanted:
        return Check("gpus", None, "train.gpus_per_worker is 0")
    counted = {node.label: int(node.resources.get("GPU", 0)) for node in nodes}
    faults: list[str] = facts.faults
    kinds: set[str] = set()
    if sum(counted.values()) < wanted:
        faults.append(f"train.workers x train.gpus_per_worker is {wanted}, GPUs in all by Ray: {sum(counted.values())}")
    for label, node in facts.values.items():
        if counted[label] != len(node.gpus):
            faults.append(f"{label}: GPUs by Ray: {counted[label]}, by nvidia-smi: {len(node.gpus)}")
        if counted[label]:
            kinds.update(node.gpus)
    if len(kinds) > 1:
        faults.append(f"GPUs of several kinds, of which the slowest sets the pace: {', '.join(sorted(kinds))}")
    fine = f"{sum(counted.values())} x {', '.join(kinds)}"
    remedy = "add GPU nodes or lower --workers; check driver, container runtime (nvidia) and num_gpus of the nodes"
    return verdict("gpus", faults, fine, remedy)


def check_cpus(shortage: str, free: float, cpus_per_read_task: float) -> Check:
    """Whether reading tasks find CPUs beside the workers: `free` ones are counted while the workers' are taken."""
    faults = [shortage] if shortage else []
    if not shortage and free < cpus_per_read_task:
        faults = [
            f"CPUs free beside the workers: {free:g}; "
            f"a reading task takes data.cpus_per_read_task ({cpus_per_read_task:g})"
        ]
    fine = f"{free:g} free beside the workers; a reading task takes {cpus_per_read_task:g}"
    return verdict("data CPUs", faults, fine, "wait for other jobs, add CPU nodes, or lower --cpus-per-worker")


def check_storage(times: Answers[StorageTimes], shared: Answers[Any], deleted: Answers[Any]) -> Check:
    """Whether every node writes, reads back, reads what another node wrote, and deletes."""
    faults = times.faults
    faults += [f"reading what another node wrote, {fault}" for fault in shared.faults]
    faults += [f"deleting, {fault}" for fault in deleted.faults]
    told = [
        f"{label}: put {t.put_ms:.0f} ms, get {t.get_ms:.0f} ms, "
        f"write {t.write_mb_per_s:.0f} MB/s, read {t.read_mb_per_s:.0f} MB/s"
        for label, t in times.values.items()
    ]
    remedy = (
        "storage must be the same place for all nodes and let them read, write and delete: check the endpoint, "
        "the rights of the nodes' role, the network (docs/storage.md)"
    )
    return verdict("storage", faults, "\n".join(told), remedy)


def check_clock(skews: Answers[float]) -> Check:
    """Whether the nodes' clocks agree with the driver's."""
    off = [f"{label}: {skew:+.1f} s against the driver" for label, skew in skews.values.items() if _is_off(skew)]
    worst = max((abs(skew) for skew in skews.values.values()), default=0.0)
    fine = f"within {worst * 1e3:.0f} ms of the driver's"
    return verdict("clock", skews.faults + off, fine, f"set the clocks (chrony, NTP): at most {MAX_SKEW_S:g} s apart")


def _is_off(skew_s: float) -> bool:
    return abs(skew_s) > MAX_SKEW_S


def check_shared_memory(nodes: Sequence[Node], facts: Answers[Facts]) -> Check:
    """Whether Ray's object store lies in memory and fits there."""
    stores = {node.label: node.resources.get("object_store_memory", 0.0) for node in nodes}
    faults, told = facts.faults, []
    for label, node in facts.values.items():
        sizes = f"{_gib(stores[label])} of objects, /dev/shm has {_gib(node.shm_bytes)}"
        told.append(f"{label}: {sizes}")
        if not node.plasma_dir.startswith("/dev/shm"):
            faults.append(f"{label}: the object store lies in {node.plasma_dir}, not in memory; {sizes}")
        elif node.shm_bytes < stores[label]:
            faults.append(f"{label}: {sizes}")
    remedy = "give containers more: --shm-size of docker run, an emptyDir of medium Memory at /dev/shm in Kubernetes"
    return verdict("shared memory", faults, "\n".join(told), remedy)


def check_disk(nodes: Sequence[Node], facts: Answers[Facts]) -> Check:
    """Whether what does not fit the object store finds a place on the disk, and logs too."""
    stores = {node.label: node.resources.get("object_store_memory", 0.0) for node in nodes}
    faults, told = facts.faults, []
    for label, node in facts.values.items():
        room = f"{label}: {_gib(node.temp_free_bytes)} free of {_gib(node.temp_bytes)} in {node.temp_dir}"
        told.append(room)
        if node.temp_free_bytes < node.temp_bytes * FULL_SHARE + stores[label]:
            faults.append(f"{room}; {FULL_SHARE:.0%} must stay free, and one object store ({_gib(stores[label])}) fit")
    return verdict("disk", faults, "\n".join(told), "clear or enlarge the disk, or give Ray another: --temp-dir")


def check_open_files(facts: Answers[Facts]) -> Check:
    """Whether processes may open enough files: Ray takes one per connection."""
    low = [f"{label}: {node.open_files} open files" for label, node in facts.values.items() if _is_low(node.open_files)]
    least = min((node.open_files for node in facts.values.values() if node.open_files > 0), default=0)
    fine = f"at least {least:,}" if least else "no limit"
    remedy = f"ulimit -n {MIN_OPEN_FILES} or more before ray start; LimitNOFILE in a unit, nofile of docker run"
    return verdict("open files", facts.faults + low, fine, remedy)


def _is_low(limit: int) -> bool:
    return 0 <= limit < MIN_OPEN_FILES  # -1 is no limit


def check_ports(refused: Answers[Mapping[str, str]], addresses: Answers[tuple[str, int]], ranges: set[str]) -> Check:
    """Whether each node takes connections of each other node on a port that its system gives out."""
    faults = addresses.faults + refused.faults
    for source, reasons in refused.values.items():
        for target, why in reasons.items():
            host, port = addresses.values[target]
            faults.append(f"{source} does not reach {target} at {host}:{port}: {why}")
    count = len(addresses.values)
    fine = f"{count * count} connections between {count} nodes" if count > 1 else "one node"
    return verdict("ports", faults, fine, ports_remedy(ranges))


def ports_remedy(ranges: set[str]) -> str:
    """What must be open for collectives."""
    return f"open all TCP ports between the nodes, at least {', '.join(sorted(ranges))}, for collectives and Ray"


def check_data(read: Mapping[str, Answers[int]]) -> Check:
    """Whether every node reads the manifest and the first row group of each data set, by URI."""
    if not read:
        return Check("data sets", None, "none given (--train, --val)")
    faults = [f"{uri} on {fault}" for uri, answers in read.items() for fault in answers.faults]
    told = [f"{uri}: {max(answers.values.values(), default=0):,} words" for uri, answers in read.items()]
    return verdict("data sets", faults, "\n".join(told), "restore or prepare the set again; all nodes must reach it")


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
