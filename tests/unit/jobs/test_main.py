"""The `textscanner` command, which dispatches to the modules in jobs/."""

import importlib
import pathlib
import subprocess
import sys

import pytest

import jobs.main
import textscanner
from jobs.main import VERBS, main

NO_COMMANDS = {"__init__", "cli", "main"}


def module_of(verb):
    return verb.replace("-", "_")


def test_every_module_with_a_command_is_a_verb():
    modules = {path.stem for path in pathlib.Path(jobs.main.__file__).parent.glob("*.py")}
    assert {module_of(verb) for verb in VERBS} == modules - NO_COMMANDS


def test_help_lists_every_verb_with_one_line(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for verb, summary in VERBS.items():
        assert [line.split(maxsplit=1)[1] for line in lines if line.startswith(f"  {verb} ")] == [summary]


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"textscanner {textscanner.__version__}\n"


@pytest.mark.parametrize(("verb", "hint"), [("trian", "did you mean train?"), ("xyz", "choose from quickstart, read,")])
def test_an_unknown_verb_gets_a_suggestion_and_exit_code_2(capsys, verb, hint):
    with pytest.raises(SystemExit) as exit:
        main([verb, "--help"])
    assert exit.value.code == 2
    assert f"there is no verb {verb!r}: {hint}" in capsys.readouterr().err


def test_no_verb_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as exit:
        main([])
    assert exit.value.code == 2
    assert "VERB" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_shows_its_own_help(capsys, monkeypatch, verb):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/textscanner"])
    with pytest.raises(SystemExit) as exit:
        main([verb, "--help"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: textscanner {verb} ")


def test_a_verb_gets_the_arguments_behind_it_and_returns_its_exit_code(monkeypatch):
    calls = []

    def watch_spot_main(argv):
        calls.append(argv)
        return 7

    monkeypatch.setattr(importlib.import_module("jobs.watch_spot"), "main", watch_spot_main)
    assert main(["watch-spot", "aws", "--poll-s", "1"]) == 7
    assert calls == [["aws", "--poll-s", "1"]]


def test_errors_of_a_verb_keep_their_exit_code(capsys, tmp_path):
    assert main(["read", str(tmp_path / "none.png")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "loaded"), [("read", []), ("render", []), ("train", []), ("tune", ["numpy"]), ("pull", ["numpy"])]
)
def test_help_imports_only_the_chosen_verb_and_nothing_heavy(verb, loaded):
    code = (
        "import sys; from jobs.main import main\n"
        f"try: main([{verb!r}, '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith('jobs.')), file=sys.stderr)\n"
        "print(sorted({'numpy', 'ray', 'tensorflow', 'pyarrow'} & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert process.stderr.splitlines() == [str(sorted(["jobs.cli", "jobs.main", f"jobs.{verb}"])), str(loaded)]
