"""`make bench`: how fast the parts are on this machine, one process, no Ray."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np

from jobs.command import user_mistakes

RENDERED_WORDS = 2_000
MIN_SECONDS = 8.0


@user_mistakes
def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.bench", description=__doc__)
    parser.add_argument("--preset", default="small", help="the network to measure")
    args = parser.parse_args(argv)
    from cluster.logs import load_tensorflow

    load_tensorflow()
    from textscanner.presets import preset

    config = preset(args.preset)
    print(f"{os.cpu_count()} cores, {args.preset}, float32, batch {config.train.global_batch}; rates of one process")
    with tempfile.TemporaryDirectory() as folder:
        _tell("render, 64 px, 'real' (one core)", "words/s", lambda: _render(folder))
        reader = _ReadChunks(config, folder)
        _tell("ingest: read, decode, augment, fit (one core)", "words/s", reader)
        _tell("training step, targets drawn inside", "images/s", _train_step(config, reader.batch))
        _tell("reading, decoding inside", "images/s", _read(config, reader.batch))
    return 0


def _tell(what: str, unit: str, work: Callable[[], int]) -> None:
    """Runs `work` (which returns how many it did) once to warm up, then for MIN_SECONDS; prints the median rate."""
    work()
    rates: list[float] = []
    begin = time.perf_counter()
    while len(rates) < 3 or time.perf_counter() - begin < MIN_SECONDS:
        start = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - start))
    print(f"  {what:<48} {np.median(rates):8.0f} {unit}", flush=True)


def _render(folder: str) -> int:
    from cluster.shards import write_manifest, write_shard
    from textscanner.render.draw import RenderSettings, render_word
    from textscanner.render.fonts import find_fonts, select

    settings = RenderSettings(seed=0, fonts=select(find_fonts(), "train"))
    records = [render_word(settings, row) for row in range(RENDERED_WORDS)]
    write_manifest(folder, [write_shard(folder, "00000", records)], set_aside={}, origin={"made_by": "jobs.bench"})
    return len(records)


class _ReadChunks:
    """Reads the rendered words chunk by chunk, as the reading tasks do."""

    def __init__(self, config, folder: str) -> None:  # noqa: ANN001
        from cluster.dataset import ChunkReader, training_plan

        data = dataclasses.replace(config.data, train=(folder,))
        config = dataclasses.replace(config, data=data)
        self._reader = ChunkReader(config, data.train, augment=True)
        self._items = training_plan(config).items_of(0, 0)
        self._size = config.train.global_batch
        self.batch: dict[str, np.ndarray] = {}

    def __call__(self) -> int:
        rows = self._reader.read(next(self._items))
        self.batch = {name: np.resize(a, (self._size, *a.shape[1:])) for name, a in rows.items() if name != "text"}
        return len(rows["length"])


def _train_step(config, batch: dict[str, np.ndarray]) -> Callable[[], int]:  # noqa: ANN001
    import tensorflow as tf

    from textscanner.step import create_state, make_train_step

    step = make_train_step(create_state(config, tf.distribute.get_strategy()))
    tensors = {name: tf.constant(value) for name, value in batch.items()}

    def run() -> int:
        step(tensors)[0].numpy()  # waits for the device
        return config.train.global_batch

    return run


def _read(config, batch: dict[str, np.ndarray]) -> Callable[[], int]:  # noqa: ANN001
    from textscanner.model import build_model
    from textscanner.reader import READ_BATCH, Reader

    reader = Reader(config, build_model(config))
    images = np.resize(batch["image"], (READ_BATCH, *batch["image"].shape[1:]))
    return lambda: len(reader.decode_batch(images).ids)


if __name__ == "__main__":
    sys.exit(main())
