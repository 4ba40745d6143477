"""Measurements -> results: a pure function per check. A result says what was measured and what to do about it."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.config import WorkerConfig
from cluster.preflight.probe import Address, Answers, Node, NodeInfo, StorageTimes, join_labels

MAX_SKEW_S = 5.0  # S3 signatures allow 15 minutes, but the log lines of several nodes must sort by time
MIN_OPEN_FILES = 8192
MIN_FREE_FRACTION = 0.05  # Ray accepts no new objects when less of the disk is free


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
      name: of the check.
      ok: None if the check does not apply or was not run.
      finding: what was measured, or what is wrong.
      remedy: what to do; empty unless the check failed.
    """

    name: str
    ok: bool | None
    finding: str
    remedy: str = ""


def result_of(name: str, problems: Sequence[str], summary: str, remedy: str) -> CheckResult:
    """A failed check with its problems and the remedy if there are any problems, else a passed one with the summary."""
    return CheckResult(name, not problems, "; ".join(problems) or summary, remedy if problems else "")


def check_versions(infos: Answers[NodeInfo], driver_versions: Mapping[str, str]) -> CheckResult:
    """Whether all nodes and the driver run the same Python, packages and source code."""
    by_machine = {"driver": driver_versions} | {label: info.versions for label, info in infos.values.items()}
    problems = infos.problems
    for package in driver_versions:
        by_version = collections.defaultdict(list)
        for label, versions in by_machine.items():
            by_version[versions[package]].append(label)
        if len(by_version) > 1:
            listing = ", ".join(f"{version} on {join_labels(labels)}" for version, labels in sorted(by_version.items()))
            problems.append(f"{package}: {listing}")
    summary = ", ".join(f"{package} {version}" for package, version in driver_versions.items())
    return result_of(
        "versions", problems, summary, "start every node from the same image, and the job from the same source"
    )


def check_gpus(train: WorkerConfig, nodes: Sequence[Node], infos: Answers[NodeInfo]) -> CheckResult:
    """Whether there are enough GPUs, of one kind, as many as Ray counts. Not yet run on a machine with GPUs."""
    num_required = train.workers * train.gpus_per_worker
    if not num_required:
        return CheckResult("gpus", None, "train.gpus_per_worker is 0")
    ray_counts = {node.label: int(node.resources.get("GPU", 0)) for node in nodes}
    num_gpus = sum(ray_counts.values())
    problems = infos.problems
    kinds: set[str] = set()
    if num_gpus < num_required:
        problems.append(
            f"train.workers x train.gpus_per_worker is {num_required}, the cluster's GPUs by Ray: {num_gpus}"
        )
    for label, info in infos.values.items():
        if ray_counts[label] != len(info.gpus):
            problems.append(f"{label}: GPUs by Ray: {ray_counts[label]}, by nvidia-smi: {len(info.gpus)}")
        if ray_counts[label]:
            kinds.update(info.gpus)
    if len(kinds) > 1:
        problems.append(f"GPUs of several kinds; the slowest limits the throughput: {', '.join(sorted(kinds))}")
    summary = f"{num_gpus} x {', '.join(kinds)}"
    remedy = "add GPU nodes or lower train.workers; check driver, container runtime (nvidia) and num_gpus of the nodes"
    return result_of("gpus", problems, summary, remedy)


def check_cpus(shortage: str, free_cpus: float, cpus_per_read_task: float) -> CheckResult:
    """Whether CPUs are left for reading tasks.

    Args:
      shortage: why the whole cluster is too small; empty if it is not.
      free_cpus: counted while those of the workers are reserved.
    """
    problems = [shortage] if shortage else []
    if not shortage and free_cpus < cpus_per_read_task:
        problems = [
            f"CPUs free beside the workers: {free_cpus:g}; "
            f"a reading task takes data.cpus_per_read_task ({cpus_per_read_task:g})"
        ]
    summary = f"{free_cpus:g} free beside the workers; a reading task takes {cpus_per_read_task:g}"
    remedy = "wait for other jobs, add CPU nodes, or lower train.cpus_per_worker"
    return result_of("data CPUs", problems, summary, remedy)


def check_storage(times: Answers[StorageTimes], reads: Answers[Any], deletions: Answers[Any]) -> CheckResult:
    """Whether every node can write, read back, read what another node wrote, and delete.

    Args:
      times: of writing and reading back.
      reads: of an object that another node wrote.
      deletions: of the object that the node itself wrote.
    """
    problems = times.problems
    problems += [f"reading what another node wrote, {problem}" for problem in reads.problems]
    problems += [f"deleting, {problem}" for problem in deletions.problems]
    summary = [
        f"{label}: put {t.put_ms:.0f} ms, get {t.get_ms:.0f} ms, "
        f"write {t.write_mb_per_s:.0f} MB/s, read {t.read_mb_per_s:.0f} MB/s"
        for label, t in times.values.items()
    ]
    remedy = (
        "all nodes must share the same storage, with permission to read, write and delete: check the endpoint, "
        "the permissions of the nodes' role, the network (docs/storage.md)"
    )
    return result_of("storage", problems, "\n".join(summary), remedy)


def check_clock(skews_s: Answers[float]) -> CheckResult:
    """Whether the nodes' clocks agree with the driver's."""
    problems = skews_s.problems + [
        f"{label}: {skew_s:+.1f} s against the driver"
        for label, skew_s in skews_s.values.items()
        if abs(skew_s) > MAX_SKEW_S
    ]
    largest_s = max((abs(skew_s) for skew_s in skews_s.values.values()), default=0.0)
    summary = f"within {largest_s * 1e3:.0f} ms of the driver's"
    return result_of(
        "clock", problems, summary, f"synchronize the clocks (chrony, NTP): at most {MAX_SKEW_S:g} s apart"
    )


def check_shared_memory(nodes: Sequence[Node], infos: Answers[NodeInfo]) -> CheckResult:
    """Whether Ray's object store is in shared memory, and fits there."""
    store_bytes = _object_store_bytes(nodes)
    problems, summary = infos.problems, []
    for label, info in infos.values.items():
        sizes = f"{_gib(store_bytes[label])} of objects, /dev/shm has {_gib(info.shm_bytes)}"
        summary.append(f"{label}: {sizes}")
        if not info.plasma_dir.startswith("/dev/shm"):
            problems.append(f"{label}: the object store is in {info.plasma_dir}, not in memory; {sizes}")
        elif info.shm_bytes < store_bytes[label]:
            problems.append(f"{label}: {sizes}")
    remedy = "enlarge it: --shm-size of docker run, an emptyDir of medium Memory at /dev/shm in Kubernetes"
    return result_of("shared memory", problems, "\n".join(summary), remedy)


def check_disk(nodes: Sequence[Node], infos: Answers[NodeInfo]) -> CheckResult:
    """Whether the disk has room for logs and for objects that Ray spills."""
    store_bytes = _object_store_bytes(nodes)
    problems, summary = infos.problems, []
    for label, info in infos.values.items():
        free = f"{label}: {_gib(info.temp_free_bytes)} free of {_gib(info.temp_bytes)} in {info.temp_dir}"
        summary.append(free)
        if info.temp_free_bytes < info.temp_bytes * MIN_FREE_FRACTION + store_bytes[label]:
            problems.append(
                f"{free}; must be {MIN_FREE_FRACTION:.0%} and the size of the object store ({_gib(store_bytes[label])})"
            )
    remedy = "clear or enlarge the disk, or start Ray with another --temp-dir"
    return result_of("disk", problems, "\n".join(summary), remedy)


def _object_store_bytes(nodes: Sequence[Node]) -> dict[str, float]:
    return {node.label: node.resources.get("object_store_memory", 0.0) for node in nodes}


def check_open_files(infos: Answers[NodeInfo]) -> CheckResult:
    """Whether processes may open enough files: Ray needs one per connection."""
    limits = {label: info.max_open_files for label, info in infos.values.items() if info.max_open_files >= 0}
    problems = infos.problems + [
        f"{label}: {limit} open files" for label, limit in limits.items() if limit < MIN_OPEN_FILES
    ]
    summary = f"at least {min(limits.values()):,}" if limits else "no limit"
    remedy = f"ulimit -n {MIN_OPEN_FILES} or more before ray start; LimitNOFILE in a unit, nofile of docker run"
    return result_of("open files", problems, summary, remedy)


def check_ports(
    refusals: Answers[Mapping[str, str]], addresses: Answers[Address], port_ranges: set[str]
) -> CheckResult:
    """Whether each node can connect to every node on a port that the system assigned.

    Args:
      refusals: for each node, the reason by label of every listener that it could not reach.
      addresses: of the listeners.
      port_ranges: that the nodes' systems assign ports from.
    """
    problems = addresses.problems + refusals.problems
    for source, reasons in refusals.values.items():
        for target, reason in reasons.items():
            host, port = addresses.values[target]
            problems.append(f"{source} does not reach {target} at {host}:{port}: {reason}")
    count = len(addresses.values)
    summary = f"{count * count} connections between {count} nodes" if count > 1 else "one node"
    return result_of("ports", problems, summary, ports_remedy(port_ranges))


def ports_remedy(port_ranges: set[str]) -> str:
    """The ports that collectives need."""
    return f"open all TCP ports between the nodes, at least {', '.join(sorted(port_ranges))}, for collectives and Ray"


def check_data(reads: Mapping[str, Answers[int]]) -> CheckResult:
    """Whether every node can read the manifest and the first row group of each data set.

    Args:
      reads: the number of words, by URI and node.
    """
    if not reads:
        return CheckResult("data sets", None, "data.train and data.val are empty")
    problems = [f"{uri} on {problem}" for uri, answers in reads.items() for problem in answers.problems]
    summary = [f"{uri}: {max(answers.values.values(), default=0):,} words" for uri, answers in reads.items()]
    remedy = "restore or prepare the data set again; all nodes must reach it"
    return result_of("data sets", problems, "\n".join(summary), remedy)


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
