"""The documentation: the site builds, links resolve, and the commands, settings, files and symbols it names exist."""

import importlib
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import cv2
import pytest
import yaml
from markdown.extensions.toc import slugify

from cluster.config import RunSpec
from cluster.data.importers.registry import FORMATS
from tests.factories import rendered_records, write_dataset
from textscanner.config_parsing import flatten
from textscanner.presets import preset

ROOT = pathlib.Path(__file__).parent.parent
OUTSIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]  # not part of the site
PAGES = [*OUTSIDE, *sorted((ROOT / "docs").glob("*.md"))]
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # a changelog also names what is gone
CODE = re.compile(r"^```[^\n]*\n(.*?)^```|(`+)(.+?)\2", re.MULTILINE | re.DOTALL)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SYMBOL_LINK = re.compile(r"\[`((?!\w+\.py)[\w.]+)`\]\(([\w/]+\.py)\)")
COMMAND = re.compile(r"(?:python -m jobs\.|(?<![\w.-])textscanner |^jobs\.)([a-z][a-z_-]*)\b(?!\.)(.*)")
ENDS_COMMAND = re.compile(r"[;&|()<>]+")
JOBS = {path.stem for path in (ROOT / "jobs").glob("*.py")}
SECTION_VALUES = RunSpec(preset("tiny")).flat_sections()
KEYS = set(flatten(SECTION_VALUES))
SECTIONS = "|".join(name for name, value in SECTION_VALUES.items() if isinstance(value, dict))
SETTING = re.compile(rf"(?:{SECTIONS})\.[a-z_]+")
FILES = re.compile(r".*\.(?:py|mdb|onnx|xml)")  # file names that look like settings
NOT_MAPPED = {"__init__.py", "__pycache__", "py.typed"}


def code_pieces(text):
    """Code blocks and code spans; lines that a backslash continues are joined."""
    return [block.replace("\\\n", " ") or span.replace("\n", " ") for block, _, span in CODE.findall(text)]


def commands(text):
    """(module in jobs/, its arguments) of each `textscanner VERB ...` or `python -m jobs.VERB ...` in the code."""
    for code in code_pieces(text):
        for line in code.splitlines():
            for match in COMMAND.finditer(line):
                lexer = shlex.shlex(match[2], posix=True, punctuation_chars=True)
                lexer.whitespace_split = True
                arguments = []
                for word in lexer:
                    if ENDS_COMMAND.fullmatch(word):
                        break
                    arguments.append(word)
                yield match[1].replace("-", "_"), arguments


def options(job, capsys):
    """The options in a command's usage line."""
    with pytest.raises(SystemExit):
        importlib.import_module(f"jobs.{job}").main(["--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0]
    return set(re.findall(r"--[a-z0-9-]+", usage)) | {"--help"}


def settings(arguments):
    """The keys of the key=value words after each --set."""
    in_set = False
    for word in arguments:
        if word.startswith("--"):
            in_set = word == "--set"
        elif in_set and "=" in word:
            yield word.partition("=")[0]


def headings(page):
    """Anchors of a page's headings."""
    without_code = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.+)$", without_code, re.M))
    return {slugify(title, "-") for title in titles}


@pytest.fixture(scope="module")
def texts():
    return {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the built site. The build runs in a copy: it writes its output and a cache beside its config."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    for ring in ("textscanner", "cluster", "jobs"):  # the API page is made from docstrings
        (folder / ring).symlink_to(ROOT / ring)
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(build, check=False, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "site"


def test_site_has_every_page_and_loads_nothing_from_other_servers(site):
    pages = {page.name: page.read_text() for page in site.glob("*.html")}
    assert {page.stem for page in PAGES[len(OUTSIDE) :]} <= {pathlib.Path(name).stem for name in pages}
    external = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^\s>]*""")
    assert {name: requests for name, text in pages.items() if (requests := external.findall(text))} == {}


def test_api_page_documents_every_public_entry_point(site):
    text = (site / "api.html").read_text()
    identifiers = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert len(identifiers) >= 10
    assert [name for name in identifiers if f'id="{name}"' not in text] == []


def test_every_page_is_in_the_navigation():
    # The file holds no YAML tags, so the safe loader reads all of it.
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = [page for section in navigation for entry in next(iter(section.values())) for page in entry.values()]
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_and_images_resolve(page):
    broken = []
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    assert broken == []


def test_external_links_use_https(texts):
    links = [(name, link) for name, text in texts.items() for link in LINK.findall(text) if "://" in link]
    assert links and [(name, link) for name, link in links if not link.startswith("https://")] == []


def test_documented_commands_exist_with_their_options_and_settings(texts, capsys):
    documented = [(page.name, *command) for page in CURRENT for command in commands(page.read_text())]
    assert [(name, job) for name, job, _ in documented if job not in JOBS] == []
    known = {job: options(job, capsys) for job in {job for _, job, _ in documented}}
    assert {"train", "tune", "prepare", "read", "pull"} <= known.keys()
    unknown = [
        (name, job, word)
        for name, job, arguments in documented
        for word in arguments
        if word.startswith("--") and word.partition("=")[0] not in known[job]
    ]
    unknown += [(name, job, key) for name, job, words in documented for key in settings(words) if key not in KEYS]
    assert unknown == []


def test_documented_settings_exist():
    """Config keys that stand alone in the text, with or without a value."""
    named = {
        (page.name, setting)
        for page in CURRENT
        for code in code_pieces(page.read_text())
        if (setting := code.partition("=")[0]) and SETTING.fullmatch(setting)
    }
    assert len(named) > 20
    assert {(name, setting) for name, setting in named if setting not in KEYS and not FILES.fullmatch(setting)} == set()


def test_documented_files_exist():
    path = re.compile(r"(?<![\w/.$~-])(?:cluster|jobs|textscanner|tests|docs)/[\w./*-]*[\w*/]")
    named = {
        (page.name, file) for page in CURRENT for code in code_pieces(page.read_text()) for file in path.findall(code)
    }
    assert len(named) > 40
    assert {(name, file) for name, file in named if not any(ROOT.glob(file.rstrip("/")))} == set()


def test_every_label_format_has_a_row_in_the_documentation(texts):
    documented = set()
    for row in re.findall(r"^\| (`[^|]+) \|", texts["docs/data.md"], re.MULTILINE):
        documented |= set(re.findall(r"`(\w+)`", row))
    assert set(FORMATS) <= documented


def test_linked_symbols_are_defined_in_the_linked_file(texts):
    """A link of the form [`name`](file.py), or [`Class.method`](file.py), names something that the file defines."""
    links = [(name, *link) for name, text in texts.items() for link in SYMBOL_LINK.findall(text)]
    assert len(links) >= 15
    missing = []
    for page, symbol, file in links:
        source = (ROOT / file).read_text()
        for part in symbol.split("."):
            if not re.search(rf"^\s*(?:def|class) {part}\b|^{part}\b.* = ", source, re.MULTILINE):
                missing.append((page, symbol, file))
    assert missing == []


def test_file_map_links_both_upper_levels_of_every_ring(texts):
    linked = {link.rstrip("/") for link in LINK.findall(texts["README.md"])}
    entries = set()
    for ring in ("jobs", "cluster", "textscanner"):
        for entry in (ROOT / ring).iterdir():
            entries |= {entry, *(entry.iterdir() if entry.is_dir() else ())}
    mapped = {entry for entry in entries if not NOT_MAPPED.intersection(entry.relative_to(ROOT).parts)}
    assert sorted(e.relative_to(ROOT).as_posix() for e in mapped if e.relative_to(ROOT).as_posix() not in linked) == []


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory):
    """What the examples of the API page read: a photograph of a word and two small data sets."""
    folder = tmp_path_factory.mktemp("examples")
    records = rendered_records(16)
    (folder / "word.png").write_bytes(records[0].image)
    assert cv2.imread(str(folder / "word.png")) is not None
    write_dataset(str(folder / "data" / "train"), records[:12])
    write_dataset(str(folder / "data" / "held_out"), records[12:])
    return folder


@pytest.mark.parametrize("number", range(len(PYTHON_BLOCK.findall((ROOT / "docs/api.md").read_text()))))
def test_api_examples_run(number, example_folder, monkeypatch, capsys):
    """Blocks marked `python` are executed; those marked `py` start a cluster and are only compiled."""
    monkeypatch.chdir(example_folder)
    block = PYTHON_BLOCK.findall((ROOT / "docs/api.md").read_text())[number]
    exec(compile(block, f"docs/api.md, example {number + 1}", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


def test_api_examples_that_start_a_cluster_compile():
    blocks = re.findall(r"^```py\n(.*?)^```", (ROOT / "docs/api.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        compile(block, "docs/api.md", "exec")
