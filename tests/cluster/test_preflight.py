"""A preflight reports every fault of a cluster, each one real, and none on a healthy cluster."""

import contextlib
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import psutil
import pytest
import ray

from cluster.config import RunSpec, override
from cluster.data.shards import read_manifest
from cluster.preflight.collective import check_allreduce, start_workers
from cluster.preflight.probe import Probe
from cluster.preflight.run import listen, reserve, survey_nodes, try_ports, try_storage
from cluster.session import _token
from cluster.storage.local_server import is_free_port
from cluster.storage.location import open_uri
from cluster.storage.s3 import s3_client
from jobs.preflight import main as preflight_job
from tests.factories import write_dataset
from textscanner.data.schema import DATASET_MANIFEST_NAME
from textscanner.presets import preset

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_a_healthy_cluster_passes_and_nothing_is_left_in_storage(ray_session, bucket, capsys):
    assert preflight_job(["--storage", bucket, "--workers", "2", "--deadline-s", "300", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert {name for name, check in checks.items() if check["ok"] is None} == {"gpus", "data sets"}
    assert all(check["remedy"] == "" for check in checks.values())
    assert "2 steps, checkpoint step_" in checks["training"]["finding"]
    assert re.search(r"2 workers, 64 MiB in \d+ ms = \d+ MB/s", checks["collective"]["finding"])
    assert list(open_uri(bucket).walk()) == []


def test_read_only_and_unreachable_storage_fail_the_check(ray_session, bucket):
    """Each probe has its own environment: full access, read only, another endpoint."""
    root = bucket.removeprefix("s3://").partition("/")[0]
    policy = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{root}/*"]}
    s3_client().put_bucket_policy(
        Bucket=root,
        Policy=json.dumps({"Version": "2012-10-17", "Statement": [policy]}),
    )
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed_endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        probes = {
            "healthy": _probe(),
            "reader": _probe(TEXTSCANNER_S3_ANONYMOUS="1"),
            "cut_off": _probe(AWS_ENDPOINT_URL_S3=closed_endpoint, TEXTSCANNER_S3_DEADLINE_S="2"),
        }
        check = try_storage(probes, bucket)
    s3_client().delete_bucket_policy(Bucket=root)
    assert not check.ok and "permissions" in check.remedy
    reader, cut_off = check.finding.split("; cut_off: ")
    assert reader.startswith("reader: ") and "access denied" in reader
    assert f"request to {closed_endpoint} failed" in cut_off and "healthy" not in check.finding


def test_a_folder_that_nodes_do_not_share_fails_the_check(ray_session, tmp_path):
    """The same path is another folder in each process: its working directory."""
    probes = {name: _probe() for name in ("first", "second")}
    for name, probe in probes.items():
        (tmp_path / name).mkdir()
        ray.get(probe.__ray_call__.remote(lambda _, folder: os.chdir(folder), str(tmp_path / name)))
    check = try_storage(probes, "/proc/self/cwd/runs")
    assert not check.ok and "all nodes must share the same storage" in check.remedy
    assert check.finding.count("reading what another node wrote") == 2
    assert try_storage(probes, str(tmp_path / "shared")).ok


def _probe(**environment):
    return ray.remote(Probe).options(num_cpus=0, runtime_env={"env_vars": environment}).remote()


def test_a_blocked_port_is_reported_with_both_ends(ray_session):
    """A listener whose queue is full: the system drops connections, as a firewall does."""
    survey = survey_nodes()
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        addresses = listen(survey.probes)
        addresses.values["blocked"] = full.getsockname()
        check = try_ports(survey, addresses)
    (label,) = survey.probes
    port = addresses.values["blocked"][1]
    assert check.finding == f"{label} does not reach blocked at 127.0.0.1:{port}: no answer"
    assert re.search(r"open all TCP ports between the nodes, at least \d+-\d+", check.remedy)


def test_a_worker_that_does_not_join_the_collective_is_named(ray_session):
    spec = override(RunSpec(preset("tiny")), ["train.workers=2"])
    placement_group, survey = reserve(spec), survey_nodes()
    workers = start_workers(spec.runtime.train, placement_group, 300)
    assert not workers.addresses.errors
    stopped = ray.get(workers.actors[1].__ray_call__.remote(lambda _: os.getpid()))
    os.kill(stopped, signal.SIGSTOP)
    try:
        check = check_allreduce(workers, survey.probes, 10, survey.port_ranges)
    finally:
        os.kill(stopped, signal.SIGKILL)
        workers.close()
        ray.util.remove_placement_group(placement_group)
    host, port = workers.addresses.values["rank 1"]
    (label,) = survey.probes
    assert not check.ok and "open all TCP ports" in check.remedy
    assert check.finding == (
        "rank 0, rank 1: no answer within 10 s; "
        f"rank 1 at {host}:{port} did not answer from {label}: connection refused"
    )


def test_an_invalid_command_is_refused_with_a_message(tmp_path, capsys):
    assert preflight_job(["huge", "--storage", str(tmp_path)]) == 2
    assert "must be one of paper, small, tiny" in capsys.readouterr().err
    assert preflight_job(["tiny", "--storage", str(tmp_path), "--workers", "3"]) == 2
    assert "must be a multiple of train.workers (3)" in capsys.readouterr().err


@pytest.fixture(scope="module")
def bad_node(ray_session, tmp_path_factory):
    """A second node until the end of this file, with faults: another Keras version by its metadata, a clock a minute
    ahead in every Python process, few open files, its object store on a disk, a GPU that does not exist."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "keras-0.0.1.dist-info").mkdir()
    (folder / "keras-0.0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: keras\nVersion: 0.0.1\n")
    (folder / "sitecustomize.py").write_text("import time\ntrue = time.time\ntime.time = lambda: true() + 60\n")
    agent = next(port for port in range(24_000, 24_500) if is_free_port(port))
    start = [
        *(str(pathlib.Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"),
        *(f"--address={ray.get_runtime_context().gcs_address}", f"--node-ip-address={ray.util.get_node_ip_address()}"),
        *("--num-cpus=1", "--num-gpus=1", f"--object-store-memory={100 << 20}", f"--plasma-directory={folder}"),
        *("--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={agent}"),
    ]
    with subprocess.Popen(
        ["bash", "-c", 'ulimit -n 4096 && exec "$@"', "bash", *start],
        env=os.environ | {"PYTHONPATH": str(folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        output = []
        for line in process.stdout:
            output.append(line)
            if "--block" in line:  # printed when the node is up
                break
        else:
            raise AssertionError("".join(output))
        yield
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(60)
        psutil.wait_procs(children, timeout=30)


@pytest.fixture(scope="module")
def findings(bad_node, object_store, words):
    """Results, by check, on a cluster with that node, two damaged data sets, and more workers than fit."""
    root = f"{object_store.uri}/preflight"
    sets = {name: write_dataset(f"{root}/{name}", words[:8]) for name in ("intact", "cut", "flipped")}
    manifest = open_uri(sets["cut"]).join(DATASET_MANIFEST_NAME)
    manifest.write_bytes(manifest.read_bytes()[:-50])
    shard = read_manifest(sets["flipped"]).shards[0]
    location = open_uri(sets["flipped"]).join(shard.name)
    data = bytearray(location.read_bytes())
    data[shard.row_groups[0].start + 50] ^= 1
    location.write_bytes(bytes(data))
    workers = ["--workers", "2", "--gpus-per-worker", "1", "--cpus-per-worker", "50", "--wait-s", "1"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = preflight_job(
            ["--storage", f"{root}/runs", "--train", *sets.values(), *workers, "--deadline-s", "300", "--json"]
        )
    assert code == 1
    return {check["name"]: check for check in json.loads(out.getvalue())}


FAULTS = {
    "too few CPUs for the workers": (
        "placement",
        r"2 workers, each 50 CPU and 1 GPU, could not be placed within 1 s; free: \S+ of 5 CPU, 1 of 1 GPU",
    ),
    "no CPU for data": (
        "data CPUs",
        r"x train\.cpus_per_worker is 100, which leaves no data\.cpus_per_read_task \(0\.5\) of the cluster's 5",
    ),
    "another version": ("versions", r"^keras: 0\.0\.1 on \S+ \(\w+\), 3\.\S+ on driver, \S+ \(\w+\)$"),
    "too few GPUs": ("gpus", r"is 2, the cluster's GPUs by Ray: 1; \S+ \(\w+\): GPUs by Ray: 1, by nvidia-smi: 0$"),
    "clock": ("clock", r"^\S+ \(\w+\): \+(59\.9|60\.0|60\.1) s against the driver$"),
    "open files": ("open files", r"^\S+ \(\w+\): 4096 open files$"),
    "object store on a disk": (
        "shared memory",
        r"^\S+ \(\w+\): the object store is in /\S+/bad0, not in memory; 0\.1 GiB of objects",
    ),
    "damaged manifest": (
        "data sets",
        r"^s3://\S+/cut on \S+ \(\w+\), \S+ \(\w+\): s3:\S+/manifest\.json is damaged \(",
    ),
    "flipped byte": (
        "data sets",
        r"/flipped on \S+ \(\w+\), \S+ \(\w+\): s3:\S+/shard-00000\.parquet, bytes \d+-\d+: their SHA",
    ),
}


@pytest.mark.parametrize(("name", "finding"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_reported_with_a_remedy(findings, name, finding):
    assert findings[name]["ok"] is False and findings[name]["remedy"]
    assert re.search(finding, findings[name]["finding"]), findings[name]["finding"]


def test_checks_without_a_fault_pass_and_slow_checks_are_skipped(findings):
    assert {name for name, check in findings.items() if check["ok"]} == {"disk", "storage", "ports"}
    assert "/intact on" not in findings["data sets"]["finding"]
    assert findings["collective"]["ok"] is None and findings["training"]["ok"] is None
