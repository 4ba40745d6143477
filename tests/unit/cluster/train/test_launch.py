"""Starting a run: its description, its folder and its resources."""

import json
import subprocess
import sys

import pytest

from cluster.config import RunSpec, override
from cluster.data.shards import read_manifest
from cluster.storage.run_layout import RunLayout
from cluster.train import launch
from cluster.train.launch import (
    _claim_folder,
    _pin_data,
    check_init,
    cpu_shortage,
    describe,
    local_cluster_cpus,
    with_absolute_uris,
)
from tests.factories import write_dataset
from textscanner.errors import UserError
from textscanner.presets import preset

SPEC = RunSpec(preset("tiny"))


def test_a_run_is_described_by_its_data_batch_steps_and_model(words, tmp_path):
    data = write_dataset(str(tmp_path / "words"), words[:16])
    spec = override(SPEC, [f'data.train=["{data}"]', "train.workers=2", "train.num_steps=4"])
    lines = describe(spec)
    assert lines[0] == f"train   {data}: 16 words, 16 with boxes"
    assert lines[1] == "batch   2 workers x 1 replicas (CPU) x 4 images = 8 per step, from 4 streams"
    assert lines[2] == "steps   4 = 32 images = 2.00 epochs"
    with pytest.raises(UserError, match=r"data\.train is empty"):
        describe(SPEC)


def test_the_best_metric_must_be_one_that_validation_reports(words, tmp_path):
    data = write_dataset(str(tmp_path / "words"), words[:16])
    spec = override(SPEC, [f'data.train=["{data}"]', "train.best_metric=val/word_acuracy"])
    with pytest.raises(UserError, match=r"^train\.best_metric is 'val/word_acuracy': must be one of val/word_accuracy"):
        describe(override(spec, [f'data.val=["{data}"]']))
    describe(spec)  # nothing is validated


def test_a_folder_is_resumed_with_the_same_config_and_refused_with_another(tmp_path):
    layout = RunLayout(str(tmp_path), "x")
    _claim_folder(layout, SPEC.config)
    _claim_folder(layout, SPEC.config)
    with pytest.raises(UserError, match=r"another config.*\n  train\.seed: 0 -> 1"):
        _claim_folder(layout, override(SPEC, ["train.seed=1"]).config)


def test_a_damaged_or_older_config_in_the_folder_is_a_user_error_that_names_it(tmp_path):
    layout = RunLayout(str(tmp_path), "x")
    _claim_folder(layout, SPEC.config)
    config = tmp_path / "x" / "config.json"
    values = json.loads(config.read_text())
    config.write_text("{")
    with pytest.raises(UserError, match=rf"^{layout.config} is damaged: .*; choose another name, or delete the run's"):
        _claim_folder(layout, SPEC.config)
    config.write_text(json.dumps(values | {"train": values["train"] | {"workers": 3}}))
    with pytest.raises(UserError, match=rf"^{layout.config}: the key train\.workers is no longer part"):
        _claim_folder(layout, SPEC.config)


def test_a_run_is_resumed_on_the_same_data_and_refused_on_other_data(words, tmp_path):
    layout = RunLayout(str(tmp_path), "x")
    kept, changed = (write_dataset(str(tmp_path / name), words[:8]) for name in ("kept", "changed"))

    def manifests():
        return {uri: read_manifest(uri) for uri in (kept, changed)}

    hashes = _pin_data(layout, manifests())
    assert hashes == _pin_data(layout, manifests()) == json.loads((tmp_path / "x" / "content_hashes.json").read_text())
    write_dataset(changed, words[8:16])
    with pytest.raises(UserError, match=rf"^{changed} has changed since this run began: its content"):
        _pin_data(layout, manifests())
    write_dataset(changed, words[:8])
    assert _pin_data(layout, manifests()) == hashes
    (tmp_path / "x" / "content_hashes.json").write_text("{")
    with pytest.raises(UserError, match=rf"^{layout.content_hashes} is damaged"):
        _pin_data(layout, manifests())


def test_initial_weights_must_exist(tmp_path):
    check_init("")
    check_init("small")
    with pytest.raises(UserError, match="there is no checkpoint there; bundled weights: small"):
        check_init(str(tmp_path / "nothing"))


def test_paths_become_absolute_and_bundled_weights_stay_names(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = with_absolute_uris(override(SPEC, ['data.train=["words"]', "train.init=small"])).config
    assert config.data.train == (f"{tmp_path}/words",) and config.train.init == "small"
    assert with_absolute_uris(override(SPEC, ["train.init=mine"])).config.train.init == f"{tmp_path}/mine"


def test_the_cluster_needs_cpus_for_the_workers_and_one_reading_task(monkeypatch):
    spec = override(SPEC, ["train.workers=4", "train.cpus_per_worker=2", "data.cpus_per_read_task=1"])
    assert local_cluster_cpus(spec) >= 4 * 2 + 2
    monkeypatch.setattr(launch, "cluster_limits", lambda: {"CPU": 9.0})
    assert cpu_shortage(spec) == ""
    monkeypatch.setattr(launch, "cluster_limits", lambda: {"CPU": 8.5})
    assert "is 8, which leaves no data.cpus_per_read_task (1) of the cluster's 8.5 CPUs" in cpu_shortage(spec)


START_RUN = """
import sys
from cluster.config import RunSpec
from cluster.storage.run_layout import RunLayout
from cluster.train import launch
from textscanner.errors import UserError
from textscanner.presets import preset
try:
    launch.train_run(RunSpec(preset("tiny")), "runs", "first")
except UserError:  # there is no data
    launch._trainer(RunSpec(preset("tiny")), RunLayout(sys.argv[1], "first"), None, {})
    print("tensorflow" in sys.modules)
"""


def test_the_driver_of_a_run_does_not_load_tensorflow(tmp_path):
    command = [sys.executable, "-c", START_RUN, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
