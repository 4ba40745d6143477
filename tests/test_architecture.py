"""The import rules: rings between the packages, floors inside them. Lazy imports count.

Rings: jobs -> cluster -> textscanner. Inside `cluster` and `textscanner` each department (a folder, or a module of the
upper level) stands on a floor and imports only from lower floors or from itself. Two departments on the same floor do
not import each other, so that either can be read, tested and replaced without the other. A failure names file, line,
import and floor.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FORBIDDEN = {
    "textscanner": {
        *("ray", "boto3", "botocore", "fsspec", "tenacity", "filelock", "argparse"),
        *("cluster", "jobs", "tests"),
    },
    "cluster": {"argparse", "jobs", "tests"},
    "jobs": {"tests"},
}
# The lowest floor first. A department may import every department on a lower line.
FLOORS = {
    "cluster": (
        {"errors"},
        {"config", "logs", "progress_bar"},
        {"storage", "tasks"},
        {"tracking"},
        {"session"},
        {"data"},
        {"train", "evaluate"},
        {"tune", "preflight", "serve"},  # serve: planned, not written yet
    ),
    "textscanner": (
        {"errors"},
        {"charset", "text", "checkpoint_files", "config_parsing"},
        {"config"},
        {"model", "data", "presets"},
        {"inference", "render"},
        {"training", "evaluation"},
        {"checkpoint"},
        {"export"},
    ),
}
STANDALONE = {"cluster": {"deploy"}}  # imports no other department of its ring and is imported by none
RE_EXPORTED = {"textscanner": {"__version__"}}  # names of a ring's own __init__.py that every floor may import
VAGUE_NAMES = {"utils", "util", "common", "core", "base", "manager", "helpers", "misc"}
MAX_ENTRIES = 18
MODULES = [path for ring in FORBIDDEN for path in sorted((ROOT / ring).rglob("*.py"))]


def imports_of(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, dotted name) of every import, at module level or inside a function."""
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            # `from cluster import session` imports cluster.session; `from cluster.x import y` imports cluster.x.
            assert node.module
            whole_ring = node.module in FLOORS
            imports += [
                (node.lineno, f"{node.module}.{alias.name}" if whole_ring else node.module) for alias in node.names
            ]
    return imports


def ring_violations(ring: str, source: str) -> list[str]:
    """Imports against the rings, and environment variables read in the innermost one."""
    tree = ast.parse(source)
    violations = [
        f"line {line}: imports {name}, which {ring}/ must not know"
        for line, name in imports_of(tree)
        if name.split(".")[0] in FORBIDDEN[ring]
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and ring == "textscanner":
            violations.append(f"line {node.lineno}: reads os.{node.attr}; textscanner/ takes arguments instead")
    return violations


def floor_of(ring: str, department: str) -> int | None:
    """Index into FLOORS[ring]; None for a department that stands alone.

    Raises:
      LookupError: the department has no floor yet.
    """
    if department in STANDALONE.get(ring, ()):
        return None
    for floor, departments in enumerate(FLOORS[ring]):
        if department in departments:
            return floor
    raise LookupError(f"{ring}/{department} stands on no floor: add it to FLOORS in {pathlib.Path(__file__).name}")


def floor_violations(ring: str, department: str, source: str) -> list[str]:
    """Imports of a department that stands higher, on the same floor, or alone."""
    own_floor = floor_of(ring, department)
    violations = []
    for line, name in imports_of(ast.parse(source)):
        imported_ring, _, rest = name.partition(".")
        imported = rest.partition(".")[0]
        if imported_ring != ring or imported == department or imported in RE_EXPORTED.get(ring, ()):
            continue
        if not imported:  # `import textscanner`, whose attributes come from all floors
            violations.append(f"line {line}: imports the whole of {ring}; import the module that is needed")
            continue
        imported_floor = floor_of(ring, imported)
        if own_floor is None or imported_floor is None:
            violations.append(f"line {line}: imports {name}, but {department} and {imported} must not know each other")
        elif imported_floor >= own_floor:
            violations.append(
                f"line {line}: imports {name} (floor {imported_floor}); {department} is on floor {own_floor} "
                "and may import lower floors only"
            )
    return violations


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_rings_and_floors(path):
    ring, *rest = path.relative_to(ROOT).with_suffix("").parts
    source = path.read_text()
    violations = ring_violations(ring, source)
    if ring in FLOORS and rest != ["__init__"]:  # a ring's own __init__.py is its public face, above all floors
        violations += floor_violations(ring, rest[0], source)
    assert not violations, f"{path.relative_to(ROOT)}: {'; '.join(violations)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_and_package_has_a_docstring_and_a_specific_name(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no module docstring"
    vague = VAGUE_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)
    assert not vague, f"{path.relative_to(ROOT)}: {vague} says nothing of what the module does"
    assert (path.parent / "__init__.py").exists(), f"{path.parent.relative_to(ROOT)} is no package: add __init__.py"


@pytest.mark.parametrize("ring", FLOORS)
def test_departments_are_few_enough_to_take_in_at_a_glance(ring):
    listed = subprocess.run(["git", "ls-files", ring], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    entries = {pathlib.PurePath(line).parts[1] for line in listed.splitlines()}
    assert len(entries) <= MAX_ENTRIES, f"{ring}/ has {len(entries)} tracked entries: {sorted(entries)}"


@pytest.mark.parametrize(
    ("ring", "source"),
    [
        ("textscanner", "def f():\n    import ray.data"),
        ("textscanner", "import fsspec"),
        ("textscanner", "from tenacity import retry"),
        ("textscanner", "from cluster.data.shards import read_manifest"),
        ("textscanner", "import os\nx = os.environ['A']"),
        ("cluster", "from jobs.train import main"),
        ("cluster", "import argparse"),
    ],
)
def test_ring_violations_are_detected(ring, source):
    assert ring_violations(ring, source)


@pytest.mark.parametrize(
    ("ring", "department", "source", "allowed"),
    [
        ("cluster", "storage", "from cluster.data.shards import read_manifest", False),
        ("cluster", "storage", "def f():\n    from cluster import session", False),
        ("cluster", "train", "import cluster.evaluate.evaluation", False),  # the same floor
        ("cluster", "train", "import cluster.deploy.spot_watcher", False),
        ("cluster", "deploy", "from cluster.logs import quiet", False),
        ("cluster", "tune", "from cluster.train.launch import train_run", True),
        ("cluster", "train", "from cluster.train.worker import train_worker", True),
        ("textscanner", "model", "from textscanner.training.step import create_state", False),
        ("textscanner", "inference", "from textscanner import load", False),
        ("textscanner", "inference", "import textscanner\ntextscanner.load('small')", False),
        ("cluster", "train", "def f():\n    import cluster", False),
        ("textscanner", "export", "from textscanner import __version__", True),
        ("textscanner", "training", "from textscanner.inference.decode import decode", True),
    ],
)
def test_floor_violations_are_detected(ring, department, source, allowed):
    if source.endswith("import load"):
        with pytest.raises(LookupError, match="stands on no floor"):
            floor_violations(ring, department, source)
        return
    violations = floor_violations(ring, department, source)
    assert bool(violations) != allowed
    assert all(sentence.startswith("line ") for sentence in violations)


@pytest.mark.parametrize(
    "module",
    ["cluster.train.launch", "cluster.data.ingest", "cluster.data.dataset_writer", "cluster.storage.checkpoints"],
)
def test_drivers_and_reading_tasks_do_not_load_tensorflow(module):
    """TensorFlow takes seconds and hundreds of megabytes, and not all of its start-up lines can be silenced."""
    code = f"import sys, {module}; print(sorted({{'tensorflow', 'keras'}} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert (process.stdout.strip(), process.stderr) == ("[]", "")
