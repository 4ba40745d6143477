"""The README's three flows (submit a training job, run a sweep, pull the best checkpoint), typed as they stand.

The shell gets nothing that a reader does not have: PATH and a HOME in which a local Ray cluster has run before.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import psutil
import pytest

from tests.factories import write_dataset

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
ROOT = pathlib.Path(__file__).parents[2]
# Of `make quickstart`, in small: besides data it leaves a HOME in which a local Ray cluster has run.
QUICKSTART = "textscanner render --out runs/quickstart/data/heldout --num-words 64 --split heldout"


def readme_lines() -> str:
    """The README's lines for a laptop, without the last, which would stop every Ray cluster on the machine."""
    section = (
        (ROOT / "README.md").read_text().partition("## Train, tune and pull on a laptop\n")[2].partition("\n## ")[0]
    )
    lines = "".join(re.findall(r"```\n(.*?)```", section, re.DOTALL))
    assert lines.endswith("ray stop\n")
    return lines.removesuffix("ray stop\n")


@pytest.fixture
def project(tmp_path):
    """A copy of the project's files with its environment, as a clone has."""
    tracked = subprocess.run(["git", "ls-files", "-z"], check=True, cwd=ROOT, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        if not name.startswith("tests/") and (ROOT / name).exists():
            target = tmp_path / "project" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    return tmp_path / "project"


@pytest.fixture
def home():
    """A HOME of its own; the processes that were started with it are killed at the end."""
    with tempfile.TemporaryDirectory(prefix="home-", ignore_cleanup_errors=True) as folder:
        yield folder
        started = [process for process in psutil.process_iter() if _has_home(process, folder)]
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=20)


def run_lines(lines, project, environment):
    """Types the lines into a shell; the first that fails is the error."""
    shell = ["bash", "-euxo", "pipefail", "-c", lines]
    result = subprocess.run(shell, check=False, cwd=project, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]


def _has_home(process: psutil.Process, folder: str) -> bool:
    try:
        return process.environ().get("HOME") == folder
    except psutil.Error:
        return False


def test_the_three_flows_work_as_the_readme_states_them(project, home, words):
    environment = {"PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": home}
    write_dataset(str(project / "runs/quickstart/data/train"), words)
    run_lines(QUICKSTART, project, environment)
    (project / "runs/quickstart/words").mkdir()
    for index, record in enumerate(words[:4]):
        (project / f"runs/quickstart/words/{index}.jpg").write_bytes(record.image)
    run_lines(readme_lines(), project, environment)
    assert (project / "best" / "state.json").exists()
    assert (project / "runs" / "sweep" / "report.html").exists()
    assert not pathlib.Path(home, ".ray", "auth_token").exists(), "later `ray job submit` would have to send a token"
