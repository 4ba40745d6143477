"""`preflight(spec, storage)`: the checks in order, from what is cheap to what takes a minute.

The workers' places are reserved first (an autoscaler brings their nodes then) and kept until training takes them, so
that every check sees the nodes that training will see.
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
    Check,
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
    verdict,
)
from cluster.preflight.collective import NAME, all_reduce, start_members
from cluster.preflight.probe import (
    Answers,
    Facts,
    Node,
    alive_nodes,
    clock_skews,
    gather,
    start_probes,
    versions,
)
from cluster.preflight.timeouts import DEFAULT_TIMEOUTS, Timeouts
from cluster.session import local_session
from cluster.storage.location import absolute_uri
from cluster.train.launch import cpu_shortage, cpus_wanted
from cluster.train.stall_monitor import MonitoredRun
from textscanner.data.schema import WordRecord
from textscanner.render.draw import RenderSettings, render_word
from textscanner.render.fonts import find_fonts, select

SMOKE_STEPS = 2
SMOKE_WORDS = 64
TRAINING = "training"
NOT_TRIED = "not tried before the others are green"


@dataclasses.dataclass(frozen=True)
class Survey:
    """A probe on each node and what the nodes are."""

    nodes: list[Node]
    probes: dict[str, Any]
    facts: Answers[Facts]

    @property
    def port_ranges(self) -> set[str]:
        """The nodes' ranges of ports that are given out."""
        return {facts.port_range for facts in self.facts.values.values()}


def preflight(spec: RunSpec, storage_uri: str, patience: Timeouts = DEFAULT_TIMEOUTS) -> Iterator[Check]:
    """The findings, each as soon as it is there.

    Objects that it writes lie below `storage_uri/.preflight-ID` and are removed at the end.
    """
    scratch = f"{absolute_uri(storage_uri).rstrip('/')}/.preflight-{uuid.uuid4().hex[:8]}"
    with local_session(cpus_wanted(spec)):
        place = reserve(spec)
        try:
            yield from _all(spec, scratch, place, patience)
        finally:
            remove_placement_group(place)


def _all(spec: RunSpec, scratch: str, place: PlacementGroup, patience: Timeouts) -> Iterator[Check]:
    deadline_s = patience.answer_s
    room = check_room(spec, place, patience.nodes_s)
    survey = start_survey(deadline_s)
    checks = [room]
    yield room
    try:
        for check in _on_nodes(spec, scratch, survey, deadline_s):
            checks.append(check)
            yield check
        checks.append(try_collective(spec, place, survey, deadline_s) if room.ok else Check(NAME, None, NOT_TRIED))
        yield checks[-1]
        remove_placement_group(place)
        is_red = any(check.ok is False for check in checks)
        if is_red:
            yield Check(TRAINING, None, NOT_TRIED)
            return
        yield watch_training(MonitoredRun(smoke_spec(spec, scratch), scratch, "smoke"), patience.step_s)
    finally:
        gather({label: probe.clear.remote(scratch) for label, probe in survey.probes.items()}, deadline_s)


def _on_nodes(spec: RunSpec, scratch: str, survey: Survey, deadline_s: float) -> Iterator[Check]:
    """What the probes find."""
    nodes, facts, probes = survey.nodes, survey.facts, survey.probes
    yield check_versions(facts, versions())
    yield check_gpus(spec.runtime.train, nodes, facts)
    yield check_cpus(
        cpu_shortage(spec), ray.available_resources().get("CPU", 0.0), spec.runtime.data.cpus_per_read_task
    )
    yield check_shared_memory(nodes, facts)
    yield check_disk(nodes, facts)
    yield check_open_files(facts)
    yield check_clock(clock_skews(probes, deadline_s=deadline_s))
    yield try_storage(probes, scratch, deadline_s)
    yield try_data(probes, (*spec.config.data.train, *spec.config.data.val), deadline_s)
    yield try_ports(survey, listen(probes, deadline_s), deadline_s)


def reserve(spec: RunSpec) -> PlacementGroup:
    """Places for the workers, as Ray Train asks for them."""
    train = spec.runtime.train
    wanted = {"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker}
    bundle = {name: count for name, count in wanted.items() if count}
    return placement_group([bundle] * train.workers, strategy="PACK")


def check_room(spec: RunSpec, place: PlacementGroup, wait_s: float) -> Check:
    """Whether the workers get their places within `wait_s`."""
    train = spec.runtime.train
    wanted = f"{train.workers} workers, each {train.cpus_per_worker:g} CPU and {train.gpus_per_worker} GPU"
    faults = []
    if not place.wait(wait_s):
        there, free = ray.cluster_resources(), ray.available_resources()
        told = ", ".join(f"{free.get(kind, 0):g} of {there.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
        faults.append(f"{wanted}, found no place within {wait_s:g} s; free: {told}")
    remedy = "wait for other jobs, add nodes, lower --workers; where an autoscaler brings nodes, --wait-s"
    return verdict("room", faults, wanted, remedy)


def start_survey(deadline_s: float = DEFAULT_TIMEOUTS.answer_s) -> Survey:
    """Asks every alive node what it is."""
    nodes = alive_nodes()
    probes = start_probes(nodes)
    return Survey(nodes, probes, gather({label: probe.facts.remote() for label, probe in probes.items()}, deadline_s))


def try_storage(probes: dict[str, Any], scratch: str, deadline_s: float = DEFAULT_TIMEOUTS.answer_s) -> Check:
    """Every node writes, reads back, reads what the node before it wrote, and deletes."""
    uris = {label: f"{scratch}/{i}" for i, label in enumerate(probes)}
    times = gather({label: probe.write.remote(uris[label]) for label, probe in probes.items()}, deadline_s)
    wrote = list(times.values)
    others = {label: uris[wrote[i - 1]] for i, label in enumerate(wrote)}
    shared = gather({label: probes[label].read.remote(uri) for label, uri in others.items()}, deadline_s)
    deleted = gather({label: probes[label].delete.remote(uris[label]) for label in wrote}, deadline_s)
    return check_storage(times, shared, deleted)


def try_data(probes: dict[str, Any], uris: Sequence[str], deadline_s: float = DEFAULT_TIMEOUTS.answer_s) -> Check:
    """Every node reads the manifest and the first row group of each data set."""
    places = [absolute_uri(uri) for uri in uris]
    return check_data(
        {
            uri: gather({label: probe.read_data.remote(uri) for label, probe in probes.items()}, deadline_s)
            for uri in places
        }
    )


def listen(probes: dict[str, Any], deadline_s: float = DEFAULT_TIMEOUTS.answer_s) -> Answers[tuple[str, int]]:
    """A listener on each node; where it is."""
    return gather({label: probe.listen.remote() for label, probe in probes.items()}, deadline_s)


def try_ports(
    survey: Survey, addresses: Answers[tuple[str, int]], deadline_s: float = DEFAULT_TIMEOUTS.answer_s
) -> Check:
    """Every node connects to every listener."""
    calls = {label: probe.connect.remote(addresses.values) for label, probe in survey.probes.items()}
    return check_ports(gather(calls, deadline_s), addresses, survey.port_ranges)


def try_collective(spec: RunSpec, place: PlacementGroup, survey: Survey, deadline_s: float) -> Check:
    """One all-reduce between the workers."""
    if spec.num_replicas == 1:
        return Check(NAME, None, "one worker: nothing to reduce")
    members = start_members(spec.runtime.train, place, deadline_s)
    try:
        return all_reduce(members, survey.probes, deadline_s, survey.port_ranges)
    finally:
        members.close()


def watch_training(run: MonitoredRun, step_s: float = DEFAULT_TIMEOUTS.step_s) -> Check:
    """Whether a run ends with a checkpoint, and takes each step within `step_s`."""
    try:
        report = list(run.reports(step_s))[-1]
    except RunError as error:
        remedy = (
            "the same config would fail in training: the message says where; docs/clusters.md. "
            "A first step that is only slow: --step-s"
        )
        return Check(TRAINING, False, str(error), remedy)
    return Check(TRAINING, True, f"{report['step']} steps, checkpoint {report['checkpoint'].rpartition('/')[2]}")


def smoke_spec(spec: RunSpec, scratch: str) -> RunSpec:
    """The spec cut to two steps, without validation and restarts; words are rendered where it names no data."""
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
        data = dataclasses.replace(data, train=(_draw_words(f"{scratch}/words"),), weights=())
    workers = dataclasses.replace(spec.runtime.train, max_failures=0)
    return RunSpec(
        dataclasses.replace(spec.config, train=train, data=data), dataclasses.replace(spec.runtime, train=workers)
    )


def _draw_words(uri: str) -> str:
    settings = RenderSettings(seed=0, fonts=select(find_fonts([]), "train"), height_px=32, difficulty="easy")
    records: list[WordRecord] = [render_word(settings, row) for row in range(SMOKE_WORDS)]
    write_manifest(uri, [write_shard(uri, "00000", records)], reject_counts={}, origin={"made_by": "jobs.preflight"})
    return uri
