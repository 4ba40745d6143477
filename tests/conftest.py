"""Fixtures that several tiers share: rendered words, an object store, a Ray session, a trained network."""

import dataclasses
import os
import pathlib
import pickle
import uuid
from typing import Any

import filelock
import pytest

import cluster  # noqa: F401 (quiet, before TensorFlow and Ray are imported)
from tests.factories import batch_of, rendered_records
from textscanner.data.schema import WordRecord

# Folders whose tests run in one process each, one after the other: they share a Ray cluster and an S3 server, and two
# of them at a time are as much as two cores take. They come first, as they take longest.
GROUPED_FOLDERS = ("tests/cluster/", "tests/storage/")


def _group(nodeid: str) -> str:
    """The tests of a group run in one process: those of a folder above, otherwise those of a file."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in GROUPED_FOLDERS if file.startswith(folder)), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the groups that take longest first."""
    items.sort(key=lambda item: not item.nodeid.startswith(GROUPED_FOLDERS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives each process of pytest-xdist whole groups. Its own `--dist loadgroup` groups nothing with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return GroupScheduling(config, log)


@pytest.fixture(scope="session")
def words() -> list[WordRecord]:
    """64 easily read words with quads."""
    return rendered_records(64)


@pytest.fixture(scope="session")
def object_store(tmp_path_factory):
    """A real S3 server on loopback; the environment of this process names it."""
    from cluster.storage import local_server

    server = local_server.start(tmp_path_factory.mktemp("objectstore"))
    with pytest.MonkeyPatch.context() as patched:
        for name, value in server.environment.items():
            patched.setenv(name, value)
        yield server
    local_server.stop(server.folder)


@pytest.fixture
def bucket(object_store) -> str:
    """A fresh prefix in the server's bucket."""
    return f"{object_store.uri}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def ray_session(object_store):
    """One local Ray cluster for the tests that need one; its workers inherit the object store's environment."""
    from cluster.session import local_session

    with local_session(num_cpus=4):
        yield


@dataclasses.dataclass(frozen=True)
class OverfittedNetwork:
    """A tiny network that reads all of its training words.

    Attributes:
      words: the training words.
      checkpoint: its folder.
      losses: of each training step.
      traces: how often the training step was traced.
      readings: of the training words, in order.
    """

    words: list[WordRecord]
    checkpoint: str
    losses: list[float]
    traces: int
    readings: list


@pytest.fixture(scope="session")
def overfitted(words, tmp_path_factory) -> OverfittedNetwork:
    """Trained on 32 words until it reads all of them; only once, also if pytest-xdist runs several processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which its processes share
    stored = folder / "overfitted.pickle"
    with filelock.FileLock(f"{stored}.lock"):
        if not stored.exists():
            stored.write_bytes(pickle.dumps(_overfit(words[:32], folder / "overfitted")))
    return pickle.loads(stored.read_bytes())


def _overfit(training_words: list[WordRecord], folder: pathlib.Path) -> OverfittedNetwork:
    """Trains for at most 600 steps."""
    import tensorflow as tf

    from textscanner import checkpoint
    from textscanner.config import BEST_METRIC, override
    from textscanner.data.images import decode
    from textscanner.inference.reader import Reader
    from textscanner.presets import preset
    from textscanner.training.step import create_state, make_train_step

    settings = ["train.global_batch_size=32", "train.num_steps=600", "optimizer.final_lr_fraction=1"]
    config = override(preset("tiny"), [*settings, "optimizer.warmup_steps=20", "optimizer.learning_rate=0.01"])
    images = [decode(record.image, record.source) for record in training_words]
    state = create_state(config, tf.distribute.get_strategy())
    reader = Reader(config, state.ema_model)
    step = make_train_step(state)
    batch = {name: tf.constant(value) for name, value in batch_of(training_words, config).items()}
    losses: list[float] = []
    readings: list = []
    while len(losses) < 600 and [r.text for r in readings] != [record.text.lower() for record in training_words]:
        losses += [float(step(batch).loss) for _ in range(25)]
        readings = reader.read(images)
    folder.mkdir()
    checkpoint.save(folder, state, checkpoint.CheckpointMeta(state.step, reader.threshold, {BEST_METRIC: 1.0}))
    return OverfittedNetwork(training_words, str(folder), losses, step.experimental_get_tracing_count(), readings)
