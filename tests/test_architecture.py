"""The rings: jobs -> cluster -> textscanner, nothing the other way, lazy imports included."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FORBIDDEN = {
    "textscanner": {"ray", "boto3", "botocore", "argparse", "cluster", "jobs", "tests"},
    "cluster": {"argparse", "jobs", "tests"},
    "jobs": {"tests"},
}
MODULES = [path for ring in FORBIDDEN for path in sorted((ROOT / ring).rglob("*.py"))]


def violations(ring: str, source: str) -> list[str]:
    """Imports against the rings, and environment variables read in the inner one."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""]
        elif isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and ring == "textscanner":
            found.append(f"line {node.lineno}: os.{node.attr}")
        found += [f"line {node.lineno}: {n}" for n in names if n.split(".")[0] in FORBIDDEN[ring]]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_inwards_and_modules_say_what_they_are_for(path):
    source = path.read_text()
    assert violations(path.relative_to(ROOT).parts[0], source) == []
    assert ast.get_docstring(ast.parse(source)), f"{path} has no module docstring"


@pytest.mark.parametrize(
    ("ring", "source"),
    [
        ("textscanner", "def f():\n    import ray.data"),
        ("textscanner", "from cluster.data.shards import read_manifest"),
        ("textscanner", "import os\nx = os.environ['A']"),
        ("cluster", "from jobs.train import main"),
        ("cluster", "import argparse"),
    ],
)
def test_a_violation_is_found(ring, source):
    assert violations(ring, source)


@pytest.mark.parametrize(
    "module",
    ["cluster.train.launch", "cluster.data.ingest", "cluster.data.dataset_writer", "cluster.storage.checkpoints"],
)
def test_drivers_and_reading_tasks_do_not_load_tensorflow(module):
    """It takes seconds and hundreds of megabytes, and its start-up lines cannot all be silenced."""
    told = f"import sys, {module}; print(sorted({{'tensorflow', 'keras'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
