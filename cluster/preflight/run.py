"""`preflight(spec, storage_uri)`: all checks, from the cheap ones to those that take a minute.

The resources of the workers are reserved first, which makes an autoscaler start their nodes, and stay reserved until
the short training takes them over: every check sees the nodes that training will use.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from cluster.config import RunSpec
from cluster.data.shards import write_manifest, write_shard
from cluster.errors import RunError
from cluster.preflight.check import (
    CheckResult,
    check_clock,
    check_cpus,
    check_data,
    check_disk,
    check_gpus,
    check_open_files,
    check_ports,
    check_shared_memory,
    check_storage,
    check_versions,
    result_of,
)
from cluster.preflight.collective import CHECK_NAME as COLLECTIVE
from cluster.preflight.collective import check_allreduce, start_workers
from cluster.preflight.probe import (
    Address,
    Answers,
    Node,
    NodeInfo,
    alive_nodes,
    clock_skews,
    gather,
    start_probes,
    versions,
)
from cluster.preflight.timeouts import DEFAULT_TIMEOUTS, Timeouts
from cluster.session import local_session
from cluster.storage.location import absolute_uri
from cluster.train.launch import cpu_shortage, local_cluster_cpus
from cluster.train.stall_monitor import MonitoredRun
from textscanner.data.schema import WordRecord
from textscanner.render.draw import RenderSettings, render_word
from textscanner.render.fonts import find_fonts, select

SMOKE_STEPS = 2
SMOKE_WORDS = 64
TRAINING = "training"
NOT_RUN = "not run before the other checks pass"


@dataclasses.dataclass(frozen=True)
class Survey:
    """The nodes of the cluster, a probe on each, and their software and limits.

    Attributes:
      nodes: all that are alive.
      probes: handles of the actors, by the node's label.
      infos: by label.
    """

    nodes: list[Node]
    probes: dict[str, Any]
    infos: Answers[NodeInfo]

    @property
    def port_ranges(self) -> set[str]:
        return {info.port_range for info in self.infos.values.values()}


def preflight(spec: RunSpec, storage_uri: str, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> Iterator[CheckResult]:
    """Runs all checks; yields each result as soon as it is known.

    Everything it writes is below `storage_uri/.preflight-ID` and is removed at the end.
    """
    scratch_uri = f"{absolute_uri(storage_uri).rstrip('/')}/.preflight-{uuid.uuid4().hex[:8]}"
    with local_session(local_cluster_cpus(spec)):
        placement_group = reserve(spec)
        try:
            yield from _run_checks(spec, scratch_uri, placement_group, timeouts)
        finally:
            remove_placement_group(placement_group)


def _run_checks(
    spec: RunSpec, scratch_uri: str, placement_group: PlacementGroup, timeouts: Timeouts
) -> Iterator[CheckResult]:
    timeout_s = timeouts.answer_s
    placement = check_placement(spec, placement_group, timeouts.nodes_s)
    survey = survey_nodes(timeout_s)
    results = [placement]
    yield placement
    try:
        for result in _check_nodes(spec, scratch_uri, survey, timeout_s):
            results.append(result)
            yield result
        if placement.ok:
            results.append(try_collective(spec, placement_group, survey, timeout_s))
        else:
            results.append(CheckResult(COLLECTIVE, None, NOT_RUN))
        yield results[-1]
        remove_placement_group(placement_group)  # the training makes its own
        if any(result.ok is False for result in results):
            yield CheckResult(TRAINING, None, NOT_RUN)
            return
        yield watch_training(MonitoredRun(smoke_spec(spec, scratch_uri), scratch_uri, "smoke"), timeouts.step_s)
    finally:
        gather({label: probe.clear.remote(scratch_uri) for label, probe in survey.probes.items()}, timeout_s)


def _check_nodes(spec: RunSpec, scratch_uri: str, survey: Survey, timeout_s: float) -> Iterator[CheckResult]:
    nodes, infos, probes = survey.nodes, survey.infos, survey.probes
    yield check_versions(infos, versions())
    yield check_gpus(spec.runtime.train, nodes, infos)
    yield check_cpus(
        cpu_shortage(spec), ray.available_resources().get("CPU", 0.0), spec.runtime.data.cpus_per_read_task
    )
    yield check_shared_memory(nodes, infos)
    yield check_disk(nodes, infos)
    yield check_open_files(infos)
    yield check_clock(clock_skews(probes, timeout_s=timeout_s))
    yield try_storage(probes, scratch_uri, timeout_s)
    yield try_data(probes, (*spec.config.data.train, *spec.config.data.val), timeout_s)
    yield try_ports(survey, listen(probes, timeout_s), timeout_s)


def reserve(spec: RunSpec) -> PlacementGroup:
    """Reserves resources for the workers as Ray Train does; they may not be available yet."""
    train = spec.runtime.train
    resources = {"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker}
    bundle = {name: count for name, count in resources.items() if count}
    group: PlacementGroup = placement_group([bundle] * train.workers, strategy="PACK")
    return group


def check_placement(spec: RunSpec, placement_group: PlacementGroup, timeout_s: float) -> CheckResult:
    """Whether the resources of all workers become available within `timeout_s`."""
    train = spec.runtime.train
    required = f"{train.workers} workers, each {train.cpus_per_worker:g} CPU and {train.gpus_per_worker} GPU"
    problems = []
    if not placement_group.wait(timeout_s):
        total, free = ray.cluster_resources(), ray.available_resources()
        available = ", ".join(f"{free.get(kind, 0):g} of {total.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
        problems.append(f"{required}, could not be placed within {timeout_s:g} s; free: {available}")
    remedy = "wait for other jobs, add nodes, or lower train.workers; with an autoscaler, wait longer for nodes"
    return result_of("placement", problems, required, remedy)


def survey_nodes(timeout_s: float = DEFAULT_TIMEOUTS.answer_s) -> Survey:
    """Starts a probe on every node that is alive, and collects software and limits of the nodes."""
    nodes = alive_nodes()
    probes = start_probes(nodes)
    return Survey(nodes, probes, gather({label: probe.info.remote() for label, probe in probes.items()}, timeout_s))


def try_storage(probes: dict[str, Any], scratch_uri: str, timeout_s: float = DEFAULT_TIMEOUTS.answer_s) -> CheckResult:
    """Every node writes, reads back, reads what the node before it wrote, and deletes."""
    uris = {label: f"{scratch_uri}/{i}" for i, label in enumerate(probes)}
    times = gather({label: probe.write.remote(uris[label]) for label, probe in probes.items()}, timeout_s)
    writers = list(times.values)
    previous = {label: uris[writers[i - 1]] for i, label in enumerate(writers)}
    reads = gather({label: probes[label].read.remote(uri) for label, uri in previous.items()}, timeout_s)
    deletions = gather({label: probes[label].delete.remote(uris[label]) for label in writers}, timeout_s)
    return check_storage(times, reads, deletions)


def try_data(probes: dict[str, Any], uris: Sequence[str], timeout_s: float = DEFAULT_TIMEOUTS.answer_s) -> CheckResult:
    """Every node reads the manifest and the first row group of each data set."""
    return check_data(
        {
            uri: gather({label: probe.read_data.remote(uri) for label, probe in probes.items()}, timeout_s)
            for uri in map(absolute_uri, uris)
        }
    )


def listen(probes: dict[str, Any], timeout_s: float = DEFAULT_TIMEOUTS.answer_s) -> Answers[Address]:
    """Starts a listener on each node."""
    return gather({label: probe.listen.remote() for label, probe in probes.items()}, timeout_s)


def try_ports(survey: Survey, addresses: Answers[Address], timeout_s: float = DEFAULT_TIMEOUTS.answer_s) -> CheckResult:
    """Every node connects to every listener."""
    calls = {label: probe.connect.remote(addresses.values) for label, probe in survey.probes.items()}
    return check_ports(gather(calls, timeout_s), addresses, survey.port_ranges)


def try_collective(spec: RunSpec, placement_group: PlacementGroup, survey: Survey, timeout_s: float) -> CheckResult:
    """One all-reduce between all workers."""
    if spec.num_replicas == 1:
        return CheckResult(COLLECTIVE, None, "one worker: nothing to reduce")
    workers = start_workers(spec.runtime.train, placement_group, timeout_s)
    try:
        return check_allreduce(workers, survey.probes, timeout_s, survey.port_ranges)
    finally:
        workers.close()


def watch_training(run: MonitoredRun, step_s: float = DEFAULT_TIMEOUTS.step_s) -> CheckResult:
    """Whether a run ends with a checkpoint, and takes each step within `step_s`."""
    try:
        report = list(run.reports(step_s, start_s=step_s))[-1]
    except RunError as error:
        remedy = (
            "training with this config would fail in the same way: see the message, and docs/clusters.md. "
            "If the first step is only slow (compilation), allow more time for a step"
        )
        return CheckResult(TRAINING, False, str(error), remedy)
    checkpoint_name = report["checkpoint"].rpartition("/")[2]
    return CheckResult(TRAINING, True, f"{report['step']} steps, checkpoint {checkpoint_name}")


def smoke_spec(spec: RunSpec, scratch_uri: str) -> RunSpec:
    """Shortens a spec to two steps without validation and restarts; renders words if it names no data."""
    train = dataclasses.replace(
        spec.config.train,
        num_steps=SMOKE_STEPS,
        log_every_steps=1,
        validate_every_steps=SMOKE_STEPS,
        checkpoint_every_steps=SMOKE_STEPS,
        image_every_steps=SMOKE_STEPS,
    )
    data = dataclasses.replace(spec.config.data, val=())
    if not data.train:
        data = dataclasses.replace(data, train=(_render_words(f"{scratch_uri}/words"),), weights=())
    workers = dataclasses.replace(spec.runtime.train, max_failures=0)
    return RunSpec(
        dataclasses.replace(spec.config, train=train, data=data), dataclasses.replace(spec.runtime, train=workers)
    )


def _render_words(uri: str) -> str:
    settings = RenderSettings(seed=0, fonts=select(find_fonts([]), "train"), height_px=32, difficulty="easy")
    records: list[WordRecord] = [render_word(settings, row) for row in range(SMOKE_WORDS)]
    write_manifest(uri, [write_shard(uri, "00000", records)], reject_counts={}, origin={"made_by": "jobs.preflight"})
    return uri
