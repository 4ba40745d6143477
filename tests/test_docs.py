"""The documentation: it builds, its links lead somewhere, and its commands, settings and files exist."""

import importlib
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from markdown.extensions.toc import slugify

from cluster.config import RunSpec
from textscanner.config import flatten
from textscanner.presets import preset

ROOT = pathlib.Path(__file__).parent.parent
OUTSIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES = [*OUTSIDE, *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^```[^\n]*\n(.*?)^```|(`+)(.+?)\2", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ENDS_COMMAND = re.compile(r"[;&|()<>]+")
CONFIG = RunSpec(preset("tiny")).flat_sections()
KEYS = set(flatten(CONFIG))
SECTIONS = "|".join(name for name, value in CONFIG.items() if isinstance(value, dict))
SETTING = re.compile(rf"(?:{SECTIONS})\.[a-z_]+")
FILES = {"data.mdb", "model.onnx", "train.xml", "test.xml"}  # look like settings


def pieces_of_code(text):
    """Blocks and spans, lines that go on joined."""
    return [block.replace("\\\n", " ") or span.replace("\n", " ") for block, _, span in CODE.findall(text)]


def commands(text):
    """(job, its arguments) of each `python -m jobs.JOB ...` or `jobs.JOB ...` in the code."""
    for code in pieces_of_code(text):
        for line in code.splitlines():
            for found in re.finditer(r"(?:python -m |^)jobs\.([a-z_]+)(.*)", line):
                words = shlex.shlex(found[2], posix=True, punctuation_chars=True)
                words.whitespace_split = True
                arguments = []
                for word in words:
                    if ENDS_COMMAND.fullmatch(word):
                        break
                    arguments.append(word)
                yield found[1], arguments


def options(job, capsys):
    """What its usage line names."""
    with pytest.raises(SystemExit):
        importlib.import_module(f"jobs.{job}").main(["--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0]
    return set(re.findall(r"--[a-z0-9-]+", usage)) | {"--help"}


def settings(arguments):
    """The key=value words after each --set."""
    setting = False
    for word in arguments:
        if word.startswith("--"):
            setting = word == "--set"
        elif setting and "=" in word:
            yield word.partition("=")[0]


@pytest.fixture(scope="module")
def texts():
    return {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}


def test_site_has_every_page_and_loads_nothing_from_other_servers(tmp_path):
    """The build runs in a copy: it writes its output and a cache beside its config. mkdocs.yml makes it strict."""
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for ring in ("textscanner", "cluster", "jobs"):  # the API page is made from docstrings
        (tmp_path / ring).symlink_to(ROOT / ring)
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(build, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {page.name: page.read_text() for page in (tmp_path / "build" / "site").glob("*.html")}
    assert {page.stem for page in PAGES[len(OUTSIDE) :]} <= {pathlib.Path(name).stem for name in pages}
    external = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^\s>]*""")
    assert {name: requests for name, text in pages.items() if (requests := external.findall(text))} == {}


@pytest.mark.parametrize("page", OUTSIDE, ids=lambda page: page.name)
def test_links_outside_the_site_lead_somewhere(page):
    broken = []
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = ROOT / path if path else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    assert broken == []


def headings(page):
    without_code = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {slugify(title, "-") for title in re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)}


def test_links_to_elsewhere_are_encrypted(texts):
    links = [(name, link) for name, text in texts.items() for link in LINK.findall(text) if "://" in link]
    assert links and [found for found in links if not found[1].startswith("https://")] == []


def test_commands_exist_and_take_what_is_given(texts, capsys):
    given = [(name, job, arguments) for name, text in texts.items() for job, arguments in commands(text)]
    known = {job: options(job, capsys) for job in {job for _, job, _ in given}}
    assert {"train", "tune", "prepare", "read"} <= known.keys()
    unknown = [
        (name, job, word)
        for name, job, arguments in given
        for word in arguments
        if word.startswith("--") and word.partition("=")[0] not in known[job]
    ]
    unknown += [(name, job, key) for name, job, words in given for key in settings(words) if key not in KEYS]
    assert unknown == []


def test_settings_exist(texts):
    """Those that stand by themselves in the running text, with or without a value."""
    named = {
        (name, setting)
        for name, text in texts.items()
        for code in pieces_of_code(text)
        if (setting := code.partition("=")[0]) and SETTING.fullmatch(setting)
    }
    assert len(named) > 20
    assert {found for found in named if found[1] not in KEYS | FILES} == set()


def test_files_exist(texts):
    path = re.compile(r"(?<![\w/.$~-])(?:cluster|jobs|textscanner|tests|docs)/[\w./*-]*[\w*/]")
    named = {
        (name, found) for name, text in texts.items() for code in pieces_of_code(text) for found in path.findall(code)
    }
    assert len(named) > 40
    assert {found for found in named if not any(ROOT.glob(found[1].rstrip("/")))} == set()
