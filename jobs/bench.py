"""`make bench`: throughput on this machine: model and data pipeline, ingest against two alternatives, a short run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from jobs.cli import cli_errors, program
from textscanner.checkpoint_files import ONNX_NAME, WEIGHTS_FOLDER

if TYPE_CHECKING:  # importing it loads TensorFlow or Ray
    from textscanner.config import Config
    from textscanner.data.schema import WordRecord

PARTS = ("compute", "ingest", "run")
RENDERED_WORDS = 2_000
INGEST_WORDS = 20_000
SINGLE_OBJECTS = 2_000  # images of the loop with a request per image
RUN_STEPS, RUN_WARMUP = 150, 50  # training steps, and how many of them are not measured
ONNX_WORDS = 512
MIN_SECONDS = 8.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program("bench"), description=__doc__)
    parser.add_argument("--preset", default="small", help="model to measure (default: small)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure (default: all)")
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.logs import load_tensorflow

    load_tensorflow()
    from textscanner.presets import preset

    config = preset(args.preset)
    print(f"{_processor()}, {os.cpu_count()} cores; {args.preset}, float32, batch {config.train.global_batch_size}")
    if "compute" in args.only:
        _compute(config)
    if "ingest" in args.only or "run" in args.only:
        with tempfile.TemporaryDirectory() as folder, _bucket(folder) as bucket:
            data = _render_words(bucket)
            if "ingest" in args.only:
                _ingest(config, bucket, data, folder)
            if "run" in args.only:
                _run(args.preset, bucket, data)
    return 0


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()


def _measure(label: str, unit: str, work: Callable[[], int], megabytes: float = 0.0) -> None:
    """Calls `work` once to warm up, then for at least MIN_SECONDS; prints the median rate.

    Args:
      work: returns the number of items that it processed.
      megabytes: size of an item; 0 prints no MB/s.
    """
    work()
    rates: list[float] = []
    begin = time.perf_counter()
    while len(rates) < 3 or time.perf_counter() - begin < MIN_SECONDS:
        start = time.perf_counter()
        num_items = work()
        rates.append(num_items / (time.perf_counter() - start))
    rate = float(np.median(rates))
    print(f"  {label:<56} {rate:8,.0f} {unit}{f'  {rate * megabytes:6.1f} MB/s' if megabytes else ''}", flush=True)


def _compute(config: Config) -> None:
    print("one process")
    with tempfile.TemporaryDirectory() as folder:
        _measure("render, 64 px, 'real' (one core)", "words/s", lambda: _render(folder))
        reader = _ReadChunks(config, folder)
        _measure("read from disk, decode, augment, resize (one core)", "words/s", reader)
        _measure("training step, with drawing of targets (all cores)", "images/s", _train_step(config, reader.batch))
        _measure("inference with decoding (all cores)", "images/s", _read(config, reader.batch))
        if (WEIGHTS_FOLDER / config.preset / ONNX_NAME).is_file():
            label = "inference with the bundled ONNX model (all cores)"
            _measure(label, "images/s", _read_onnx(config.preset, reader.batch["image"]))


def _render(folder: str) -> int:
    from cluster.data.shards import write_manifest, write_shard
    from textscanner.render.draw import RenderSettings, render_word
    from textscanner.render.fonts import find_fonts, select

    settings = RenderSettings(seed=0, fonts=select(find_fonts(), "train"))
    records = [render_word(settings, row) for row in range(RENDERED_WORDS)]
    write_manifest(folder, [write_shard(folder, "00000", records)], reject_counts={}, origin={"made_by": "jobs.bench"})
    return len(records)


class _ReadChunks:
    """Reads words chunk by chunk, as Ray Data's read tasks do; keeps the last rows as a batch of the global size."""

    def __init__(self, config: Config, uri: str, num_chunks: int = 1) -> None:
        from cluster.config import IngestConfig
        from cluster.data.ingest import ChunkReader, make_training_sampler

        data = dataclasses.replace(config.data, train=(uri,))
        config = dataclasses.replace(config, data=data)
        self._reader = ChunkReader(config, data.train, augment=True, ingest=IngestConfig())
        self._reads = make_training_sampler(config).chunk_reads(0, 0)
        self._batch_size, self._num_chunks = config.train.global_batch_size, num_chunks
        self.batch: dict[str, np.ndarray] = {}

    def __call__(self) -> int:
        num_words = 0
        for _ in range(self._num_chunks):
            rows = self._reader.read(next(self._reads))
            num_words += len(rows["length"])
        self.batch = {
            name: np.resize(values, (self._batch_size, *values.shape[1:]))
            for name, values in rows.items()
            if name != "text"
        }
        return num_words


def _train_step(config: Config, batch: dict[str, np.ndarray]) -> Callable[[], int]:
    import tensorflow as tf

    from textscanner.training.step import create_state, make_train_step

    step = make_train_step(create_state(config, tf.distribute.get_strategy()))
    tensors = {name: tf.constant(value) for name, value in batch.items()}

    def run() -> int:
        step(tensors).loss.numpy()  # blocks until the device is done
        return config.train.global_batch_size

    return run


def _read(config: Config, batch: dict[str, np.ndarray]) -> Callable[[], int]:
    from textscanner.inference.postprocess import READ_BATCH
    from textscanner.inference.reader import Reader
    from textscanner.model import build_model

    reader = Reader(config, build_model(config))
    images = np.resize(batch["image"], (READ_BATCH, *batch["image"].shape[1:]))
    return lambda: len(reader.decode_batch(images).ids)


def _read_onnx(weights: str, images: np.ndarray) -> Callable[[], int]:
    import textscanner

    reader = textscanner.load_fast(weights)
    inputs = list(np.resize(images, (ONNX_WORDS, *images.shape[1:])))
    return lambda: len(reader.read(inputs))


@contextlib.contextmanager
def _bucket(folder: str) -> Iterator[str]:
    """Runs a local S3 server during the block and sets its environment variables; yields the bucket's URI."""
    from cluster.storage import local_server

    server = local_server.start(pathlib.Path(folder) / "objectstore")
    os.environ.update(server.environment)
    try:
        yield server.uri
    finally:
        local_server.stop(server.folder)


def _render_words(bucket: str) -> str:
    from cluster.data.render_dataset import render_dataset
    from textscanner.render.draw import RenderSettings
    from textscanner.render.fonts import find_fonts, select

    render_dataset(
        RenderSettings(seed=0, fonts=select(find_fonts(), "train")), f"{bucket}/words", num_words=INGEST_WORDS
    )
    return f"{bucket}/words"


def _ingest(config: Config, bucket: str, data: str, folder: str) -> None:
    from cluster.data.shards import read_manifest, read_records

    manifest = read_manifest(data)
    megabytes = sum(shard.num_bytes for shard in manifest.shards) / manifest.num_rows / 1e6
    records = list(itertools.islice(read_records(data), SINGLE_OBJECTS))
    print(f"ingest from a local bucket, one process, one core; {INGEST_WORDS:,} words of {megabytes * 1e3:.1f} kB")
    _measure("row groups, verified, decoded", "words/s", _row_groups(data), megabytes)
    _measure(
        "the same, augmented and resized: a read task", "words/s", _ReadChunks(config, data, num_chunks=8), megabytes
    )
    _measure("boto3 get_object per image, cv2.imdecode", "words/s", _single_objects(bucket, records), megabytes)
    _measure("tf.data, TFRecord on local disk, decode_jpeg", "words/s", _tfrecords(folder, records), megabytes)


def _row_groups(data: str) -> Callable[[], int]:
    from cluster.data.shards import read_manifest, read_row_group
    from textscanner.data import schema

    refs = itertools.cycle([ref for shard in read_manifest(data).shards for ref in shard.refs()])

    def read() -> int:
        records = [r for ref in itertools.islice(refs, 8) for r in schema.from_table(read_row_group(data, ref))]
        return sum(_decode(record.image) is not None for record in records)

    return read


def _decode(image: bytes) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)


def _single_objects(bucket: str, records: list[WordRecord]) -> Callable[[], int]:
    from cluster.storage.s3 import s3_client

    client, name = s3_client(), bucket.removeprefix("s3://")
    for i, record in enumerate(records):
        client.put_object(Bucket=name, Key=f"single/{i}.jpg", Body=record.image)
    keys = itertools.cycle([f"single/{i}.jpg" for i in range(len(records))])

    def read() -> int:
        bodies = (client.get_object(Bucket=name, Key=key)["Body"].read() for key in itertools.islice(keys, 256))
        return sum(_decode(body) is not None for body in bodies)

    return read


def _tfrecords(folder: str, records: list[WordRecord]) -> Callable[[], int]:
    import tensorflow as tf

    path = f"{folder}/words.tfrecord"
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[record.image]))
            text = tf.train.Feature(bytes_list=tf.train.BytesList(value=[record.text.encode()]))
            example = tf.train.Example(features=tf.train.Features(feature={"image": image, "text": text}))
            writer.write(example.SerializeToString())
    features = {"image": tf.io.FixedLenFeature([], tf.string), "text": tf.io.FixedLenFeature([], tf.string)}

    def parse(data: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(tf.io.parse_single_example(data, features)["image"], channels=3)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    rows = tf.data.TFRecordDataset(path).map(parse).with_options(options)
    return lambda: sum(1 for _ in rows)


def _run(preset_name: str, bucket: str, data: str) -> None:
    """Trains with two workers on the bucket's words; prints the throughput after the first RUN_WARMUP steps."""
    from cluster.config import RunSpec, override
    from cluster.storage.location import open_uri
    from cluster.train.launch import train_run
    from textscanner.presets import preset

    steps = ("num_steps", "validate_every_steps", "checkpoint_every_steps", "image_every_steps")
    assignments = [
        *(f"train.{key}={RUN_STEPS}" for key in steps),
        f'data.train=["{data}"]',
        "train.workers=2",
        "train.log_every_steps=10",
        f"optimizer.warmup_steps={RUN_WARMUP}",
    ]
    result = train_run(override(RunSpec(preset(preset_name)), assignments), f"{bucket}/runs", "bench")
    lines = open_uri(f"{result.run_root}/metrics.jsonl").read_bytes().splitlines()
    rows = [row for row in map(json.loads, lines) if row["step"] > RUN_WARMUP and "train/images_per_s" in row]
    rate, wait = (np.mean([row[f"train/{key}"] for row in rows]) for key in ("images_per_s", "data_wait_fraction"))
    print(f"training from the bucket, two workers, steps {RUN_WARMUP} to {RUN_STEPS}")
    print(f"  {'whole system':<56} {rate:8.0f} images/s, {wait:.1%} of the time waiting for data")


if __name__ == "__main__":
    sys.exit(main())
