"""The files that start clusters are valid for the tools that read them, and consistent with the code that they start.

No cloud is contacted. Ray's launcher and autoscaler read their files; kustomize builds the manifests, which are
validated against Kubernetes' schema and KubeRay's fields; hadolint, shellcheck and pip's metadata check the rest.
"""

import gzip
import importlib
import importlib.metadata
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile

import jsonschema
import pytest
import ray
import referencing
import yaml
from packaging.requirements import Requirement
from ray._private import ray_constants
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.runtime_env import RuntimeEnv
from ray.train.v2._internal.constants import WORKER_GROUP_START_TIMEOUT_S_ENV_VAR

ROOT = pathlib.Path(__file__).parents[4]
BIN = pathlib.Path(sys.executable).parent
CLUSTERS = {"aws": ROOT / "ray_cluster.yaml", "gcp": ROOT / "cluster/deploy/gcp/ray_cluster.yaml"}
OVERLAYS = [f"{size}/{use}" for size in ("small", "large") for use in ("cluster", "train", "sweep")]
SCRIPTS = [
    "cluster/deploy/check_image.sh",
    "cluster/deploy/aws/set_up.sh",
    "cluster/deploy/gcp/set_up.sh",
    "cluster/deploy/slurm/train.sbatch",
]
# Keys that Ray's launcher no longer supports, or ignores silently.
OBSOLETE = {"head_node", "worker_nodes", "initial_workers", "min_workers", "autoscaling_mode", "default_worker_type"}
# Permissions that each call of boto3's client in the code needs; pyarrow's filesystem needs no others.
ACTIONS = {
    "get_object": {"s3:GetObject"},
    "upload_fileobj": {"s3:PutObject", "s3:AbortMultipartUpload"},
    "put_object": {"s3:PutObject"},
    "delete_objects": {"s3:DeleteObject"},
    "list_objects_v2": {"s3:ListBucket"},
    "list_multipart_uploads": {"s3:ListBucketMultipartUploads"},
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
    "head_bucket": {"s3:ListBucket"},
}


def parsed_job(command: str) -> str:
    """Parses `python -m jobs.NAME ...` with the parser of that command; returns `jobs.NAME`."""
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"] and words[2].startswith("jobs."), command
    importlib.import_module(words[2])._parser().parse_args(words[3:])
    return words[2]


@pytest.fixture(params=CLUSTERS)
def launched(request):
    """(cloud, the cluster file, the same with the defaults that Ray's launcher fills in)"""
    written = yaml.safe_load(CLUSTERS[request.param].read_text())
    prepared = prepare_config(yaml.safe_load(CLUSTERS[request.param].read_text()))
    validate_config(prepared)
    return request.param, written, prepared


def test_rays_launcher_accepts_the_cluster_file(launched):
    cloud, written, prepared = launched
    schema = json.loads((pathlib.Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(written, schema)
    assert not OBSOLETE & written.keys()
    assert sum(node["max_workers"] for node in prepared["available_node_types"].values()) <= written["max_workers"]
    for name, node in written["available_node_types"].items():
        assert node["resources"] or cloud == "aws", f"{name}: Ray knows no resources of {cloud}'s machine types"


def test_the_head_has_no_cpus_for_tasks_and_workers_are_spot_nodes_that_scale_from_zero(launched):
    cloud, written, prepared = launched
    nodes = dict(written["available_node_types"])
    head = nodes.pop(written["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    (start,) = (c for c in prepared["head_start_ray_commands"] if "ray start" in c)
    assert "--num-cpus=0" in start and "--dashboard-host=127.0.0.1" in start
    spot = {"aws": ("InstanceMarketOptions", "MarketType", "spot"), "gcp": ("scheduling", "provisioningModel", "SPOT")}
    section, key, value = spot[cloud]
    assert section not in head["node_config"]
    for node in nodes.values():
        assert node["node_config"][section][key] == value
        assert node["min_workers"] == 0


def test_each_node_type_has_shared_memory_and_its_gpus(launched):
    _, written, prepared = launched
    config = AutoscalingConfig(prepared, skip_content_hash=True)
    for name in written["available_node_types"]:
        docker = config.get_docker_config(name)
        is_head = name == written["head_node_type"]
        options = docker["run_options"] + docker["head_run_options" if is_head else "worker_run_options"]
        assert sum(option.startswith("--shm-size=") for option in options) == 1, name
        assert ("--gpus=all" in options) == (name == "gpu")
        assert re.fullmatch(r"\S+:\d+\.\d+\.\d+\S*", docker["image"]), "the tag must be a version"


def test_spot_workers_start_the_watcher_of_their_cloud(launched):
    cloud, _, prepared = launched
    (start,) = (c for c in prepared["worker_start_ray_commands"] if "jobs." in c)
    command = re.search(r"python -m jobs[^>]*", start).group()
    assert parsed_job(command) == "jobs.watch_spot"
    assert shlex.split(command)[3] == cloud


def test_the_set_up_script_creates_what_the_cluster_file_refers_to():
    written = yaml.safe_load(CLUSTERS["aws"].read_text())
    script = (ROOT / "cluster/deploy/aws/set_up.sh").read_text()
    nodes = written["available_node_types"].values()
    profiles = {node["node_config"]["IamInstanceProfile"]["Name"] for node in nodes}
    assert profiles == {"textscanner-head", "textscanner-worker"}
    assert profiles <= set(re.findall(r"textscanner-\w+", script))
    assert f"--env=AWS_REGION={written['provider']['region']}" in written["docker"]["run_options"]
    head_policy = json.loads((ROOT / "cluster/deploy/aws/head_policy.json").read_text())
    by_name = {statement["Sid"]: statement for statement in head_policy["Statement"]}
    tag = by_name["EndNodesOfThisCluster"]["Condition"]["StringEquals"]["ec2:ResourceTag/ray-cluster-name"]
    assert tag == written["cluster_name"]
    assert by_name["GiveWorkersTheirRole"]["Resource"].endswith("role/textscanner-worker")


def test_policies_allow_exactly_what_the_code_calls():
    source = "".join(path.read_text() for path in sorted((ROOT / "cluster").rglob("*.py")))
    called = re.findall(r"client(?:\([^)]*\))?\.(?!exceptions)(\w+)[(,]", source)
    required = set().union(*(ACTIONS[name] for name in called))
    allowed = set()
    for path in sorted((ROOT / "cluster/deploy/aws").glob("*.json")):
        for statement in json.loads(path.read_text())["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert not any("*" in action for action in actions), f"{path.name}: {actions}"
            allowed |= set(actions)
    assert {action for action in allowed if action.startswith("s3:")} == required


@pytest.fixture(scope="module")
def built():
    """The manifests that kustomize builds from each overlay."""

    def build(overlay: str) -> list[dict]:
        command = [str(BIN / "kubectl"), "kustomize", str(ROOT / "cluster/deploy/kuberay/overlays" / overlay)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    return {overlay: build(overlay) for overlay in OVERLAYS}


@pytest.fixture(scope="module")
def validate():
    """A function that raises if a manifest breaks Kubernetes' schema or has a field that KubeRay does not know."""
    kubernetes = json.loads(gzip.decompress((ROOT / "tests/data/kubernetes-1.37.json.gz").read_bytes()))
    kuberay = yaml.safe_load((ROOT / "tests/data/kuberay.yaml").read_text())
    specification = referencing.jsonschema.DRAFT202012
    registry = referencing.Registry().with_resources(
        (name, specification.create_resource(schema))
        for name, schema in {"kubernetes": kubernetes, "kuberay": kuberay}.items()
    )

    def check(manifest: dict) -> None:
        kind = manifest["kind"]
        definitions = "kubernetes#/$defs/io.k8s.api.core.v1." if kind == "ServiceAccount" else "kuberay#/$defs/"
        jsonschema.Draft202012Validator({"$ref": definitions + kind}, registry=registry).validate(manifest)

    return check


def cluster_spec(manifests: list[dict]) -> dict:
    """The RayCluster's spec, or the RayJob's own cluster's."""
    (ray_object,) = (m for m in manifests if m["kind"] in ("RayCluster", "RayJob"))
    return ray_object["spec"] if ray_object["kind"] == "RayCluster" else ray_object["spec"]["rayClusterSpec"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_builds_manifests_that_kubernetes_and_kuberay_accept(built, validate, overlay):
    kinds = {"ServiceAccount", "RayCluster" if overlay.endswith("cluster") else "RayJob"}
    assert {manifest["kind"] for manifest in built[overlay]} == kinds
    for manifest in built[overlay]:
        validate(manifest)
    assert cluster_spec(built[overlay])["rayVersion"] == ray.__version__


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ((), "ttlSecondsAfterFinish"),
        (("rayClusterSpec", "workerGroupSpecs", 0), "minReplica"),
        (("rayClusterSpec", "headGroupSpec", "template", "spec"), "toleration"),
        (("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0), "envfrom"),
    ],
)
def test_a_misspelled_field_is_rejected(built, validate, path, field):
    job = json.loads(json.dumps(next(m for m in built["large/train"] if m["kind"] == "RayJob")))
    parent = job["spec"]
    for key in path:
        parent = parent[key]
    parent[field] = []
    with pytest.raises(jsonschema.ValidationError, match=field):
        validate(job)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rays_autoscaler_reads_the_sizes_and_the_grace_period_is_longer_than_a_drain(built, overlay):
    spec = cluster_spec(built[overlay])
    manifest = {"metadata": {"name": "textscanner", "namespace": "default"}, "spec": spec}
    nodes = _derive_autoscaling_config_from_ray_cr(manifest)["available_node_types"]
    assert nodes["headgroup"]["resources"]["CPU"] == 0
    assert sum(node["resources"].get("GPU", 0) for node in nodes.values()) == (1 if overlay.startswith("large") else 0)
    for group in spec["workerGroupSpecs"]:
        seconds = group["template"]["spec"]["terminationGracePeriodSeconds"]
        assert seconds > ray_constants.RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S


@pytest.mark.parametrize("overlay", [overlay for overlay in OVERLAYS if not overlay.endswith("cluster")])
def test_a_rayjob_runs_an_existing_command_and_is_retried_however_long_it_has_run(built, overlay):
    (job,) = (manifest["spec"] for manifest in built[overlay] if manifest["kind"] == "RayJob")
    assert parsed_job(job["entrypoint"]) == ("jobs.train" if overlay.endswith("train") else "jobs.tune")
    assert job["backoffLimit"] > 0 and job["shutdownAfterJobFinishes"]
    assert "activeDeadlineSeconds" not in job  # over all tries: it would end a run that makes progress
    assert WORKER_GROUP_START_TIMEOUT_S_ENV_VAR in yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]


@pytest.mark.parametrize("overlay", ["small/train", "large/train"])
def test_a_training_rayjob_has_a_config_that_fits_its_cluster(built, overlay):
    from jobs import train
    from jobs.cli import run_spec

    (job,) = (manifest["spec"] for manifest in built[overlay] if manifest["kind"] == "RayJob")
    args = train._parser().parse_args(shlex.split(job["entrypoint"])[3:])
    runtime = run_spec(args, args.workers).runtime
    manifest = {"metadata": {"name": "textscanner", "namespace": "default"}, "spec": job["rayClusterSpec"]}
    groups = [n for n in _derive_autoscaling_config_from_ray_cr(manifest)["available_node_types"].values()]
    largest = {kind: sum(g["max_workers"] * g["resources"].get(kind, 0) for g in groups) for kind in ("CPU", "GPU")}
    assert runtime.train.workers * runtime.train.cpus_per_worker + runtime.data.cpus_per_read_task <= largest["CPU"]
    assert runtime.train.workers * runtime.train.gpus_per_worker <= largest["GPU"]
    assert bool(runtime.train.gpus_per_worker) == overlay.startswith("large")


def test_the_dockerfile_installs_locked_versions_and_copies_existing_files():
    done = subprocess.run(
        [str(BIN / "hadolint"), str(ROOT / "cluster/deploy/Dockerfile")], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()
    lines = (ROOT / "cluster/deploy/Dockerfile").read_text().splitlines()
    installs = {line.partition("--no-cache-dir ")[2] for line in lines if line.startswith("RUN pip install")}
    assert installs == {"-r requirements.lock", "-r cluster/deploy/gpu.lock", "--no-deps -e ."}
    included = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in (line.split()[-2] for line in lines if line.startswith("COPY")):
        assert (ROOT / source).exists()
        assert source == "." or source.split("/")[0] in included
    assert all((ROOT / name).exists() for name in included)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    build_files = {"pyproject.toml", project["readme"], *project["license-files"]}
    assert {"cluster", "jobs", "textscanner"} | build_files <= set(included)


def test_cuda_is_locked_to_what_this_tensorflow_requires():
    """After an upgrade of TensorFlow, cluster/deploy/gpu.lock must be regenerated."""
    lock = (ROOT / "cluster/deploy/gpu.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==([\w.]+)", lock, re.MULTILINE))
    requirements = [Requirement(text) for text in importlib.metadata.requires("tensorflow") or []]
    requirements = [
        r for r in requirements if r.marker and not r.marker.evaluate() and r.marker.evaluate({"extra": "and-cuda"})
    ]
    assert {requirement.name for requirement in requirements} == locked.keys()
    for requirement in requirements:
        assert requirement.specifier.contains(locked[requirement.name]), requirement


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_pass_shellcheck(script):
    done = subprocess.run([str(BIN / "shellcheck"), str(ROOT / script)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert (ROOT / script).stat().st_mode & 0o100 or script.endswith(".sbatch")


def test_start_commands_pass_shellcheck(launched):
    _, _, prepared = launched
    keys = ("initialization_commands", "head_start_ray_commands", "worker_start_ray_commands")
    commands = "\n".join(command for key in keys for command in prepared[key])
    command = [str(BIN / "shellcheck"), "--shell=bash", "--exclude=SC2086,SC2154", "-"]  # $RAY_HEAD_IP is Ray's
    done = subprocess.run(command, check=False, input=commands, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_slurm_job_is_requeued_and_submits_an_existing_command():
    text = (ROOT / "cluster/deploy/slurm/train.sbatch").read_text()
    options = re.findall(r"^#SBATCH (--\S+)", text, re.MULTILINE)
    assert "--requeue" in options and any(option.startswith("--signal=B:TERM@") for option in options)
    (submitted,) = re.findall(r"^ray job submit .* -- python -m (\S+)", text, re.MULTILINE)
    assert submitted == "jobs.train"
    assert "--runtime-env jobs/runtime_env.yaml --working-dir ." in text


def test_the_package_of_a_submitted_job_is_small_and_complete(tmp_path):
    create_package(str(ROOT), tmp_path / "job.zip", include_gitignore=True)
    with zipfile.ZipFile(tmp_path / "job.zip") as archive:
        names = set(archive.namelist())
        shipped = sum(entry.file_size for entry in archive.infolist())
    assert {"jobs/train.py", "cluster/train/worker.py", "textscanner/weights/small/weights.safetensors"} <= names
    assert not [name for name in names if name.split("/")[0] in ("tests", "docs", "runs", ".venv", ".git")]
    assert shipped < 64 << 20  # Ray refuses 512 MiB, and every node fetches it
    environment = yaml.safe_load((ROOT / "jobs/runtime_env.yaml").read_text())
    assert environment.keys() == {"env_vars"}  # Ray or TensorFlow in `pip` would break the job
    assert WORKER_GROUP_START_TIMEOUT_S_ENV_VAR in RuntimeEnv(**environment)["env_vars"]
