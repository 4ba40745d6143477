"""Checks of a preflight as pure functions: measurements in, results out."""

import dataclasses

from cluster.config import WorkerConfig
from cluster.preflight import check
from cluster.preflight.probe import Answers, Node, NodeInfo, join_labels

GIB = 1 << 30
INFO = NodeInfo(
    versions={"python": "3.11.7", "keras": "3.15.0"},
    gpus=(),
    plasma_dir="/dev/shm",
    shm_bytes=4 * GIB,
    temp_dir="/tmp/ray",
    temp_free_bytes=50 * GIB,
    temp_bytes=100 * GIB,
    max_open_files=65536,
    port_range="32768-60999",
)


def nodes_with(**resources):
    return [Node("id", "a", {"object_store_memory": 2.0 * GIB} | resources)]


def infos_with(**changes):
    return Answers({"a": dataclasses.replace(INFO, **changes)}, {})


def test_a_node_without_an_answer_fails_every_check_of_it():
    silent = Answers({}, {"a": "no answer within 5 s", "b": "no answer within 5 s"})
    for result in (
        check.check_versions(silent, INFO.versions),
        check.check_disk([], silent),
        check.check_open_files(silent),
    ):
        assert not result.ok and "a, b: no answer within 5 s" in result.finding


def test_versions_must_be_those_of_the_driver():
    assert check.check_versions(infos_with(), INFO.versions).ok
    result = check.check_versions(infos_with(versions=INFO.versions | {"keras": "3.14.0"}), INFO.versions)
    assert not result.ok and result.finding == "keras: 3.14.0 on a, 3.15.0 on driver"


def test_gpus_must_be_enough_of_one_kind_and_those_that_ray_counts():
    train = WorkerConfig(workers=2, gpus_per_worker=1)
    assert check.check_gpus(WorkerConfig(), nodes_with(), infos_with()).ok is None
    assert check.check_gpus(train, nodes_with(GPU=2.0), infos_with(gpus=("L4", "L4"))).ok
    too_few = check.check_gpus(train, nodes_with(GPU=1.0), infos_with(gpus=("L4",)))
    assert not too_few.ok and "is 2, the cluster's GPUs by Ray: 1" in too_few.finding
    mixed = check.check_gpus(train, nodes_with(GPU=2.0), infos_with(gpus=("L4", "T4")))
    assert "the slowest limits the throughput: L4, T4" in mixed.finding


def test_reading_tasks_need_a_cpu_beside_the_workers():
    assert check.check_cpus("", 1.0, 0.5).ok
    assert "CPUs free beside the workers: 0.25" in check.check_cpus("", 0.25, 0.5).finding
    assert check.check_cpus("too small", 9.0, 0.5).finding == "too small"


def test_the_object_store_must_be_in_shared_memory_and_fit():
    assert check.check_shared_memory(nodes_with(), infos_with()).ok
    assert not check.check_shared_memory(nodes_with(), infos_with(shm_bytes=GIB)).ok
    assert "not in memory" in check.check_shared_memory(nodes_with(), infos_with(plasma_dir="/tmp")).finding


def test_the_disk_must_have_room_for_an_object_store_and_five_percent():
    assert check.check_disk(nodes_with(), infos_with(temp_free_bytes=8 * GIB)).ok
    assert not check.check_disk(nodes_with(), infos_with(temp_free_bytes=6 * GIB)).ok


def test_open_files_have_a_minimum_and_minus_one_is_no_limit():
    assert not check.check_open_files(infos_with(max_open_files=4096)).ok
    assert check.check_open_files(infos_with(max_open_files=-1)).finding == "no limit"
    assert check.check_open_files(infos_with()).finding == "at least 65,536"


def test_clocks_may_differ_by_five_seconds():
    assert check.check_clock(Answers({"a": -4.9, "b": 0.2}, {})).finding == "within 4900 ms of the driver's"
    assert check.check_clock(Answers({"a": -5.1, "b": 0.2}, {})).finding == "a: -5.1 s against the driver"


def test_a_port_that_refuses_is_named_with_both_ends():
    addresses = Answers({"a": ("10.0.0.1", 40000), "b": ("10.0.0.2", 40001)}, {})
    result = check.check_ports(Answers({"a": {"b": "no answer"}, "b": {}}, {}), addresses, {"32768-60999"})
    assert result.finding == "a does not reach b at 10.0.0.2:40001: no answer" and "32768-60999" in result.remedy
    assert (
        check.check_ports(Answers({"a": {}, "b": {}}, {}), addresses, set()).finding == "4 connections between 2 nodes"
    )


def test_data_sets_that_a_node_cannot_read_are_named():
    assert check.check_data({}).ok is None
    result = check.check_data({"s3://x/good": Answers({"a": 8}, {}), "s3://x/bad": Answers({}, {"a": "damaged"})})
    assert not result.ok and result.finding == "s3://x/bad on a: damaged"


def test_long_lists_of_nodes_are_shortened():
    assert join_labels(["a", "b"]) == "a, b"
    assert join_labels(list("abcdef")) == "a, b, c, d and 2 more"
