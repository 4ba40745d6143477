"""`make quickstart`: words are drawn, a model learns to read them on two workers, and reads words it has never seen.

Every stage that is complete is not done again; training resumes by itself.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Literal

from jobs.command import cli_errors

FOLDER, NAME = "runs", "quickstart"
NUM_STEPS, GLOBAL_BATCH = 900, 32
TRAIN_WORDS, HELDOUT_WORDS = NUM_STEPS * GLOBAL_BATCH, 1_000  # each word is seen once
TRAIN_SEED, HELDOUT_SEED = 1, 2
OVERLAYS = 24


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stages; returns the exit code of the first that fails, else 0."""
    parser = argparse.ArgumentParser(prog="python -m jobs.quickstart", description=__doc__)
    parser.add_argument(
        "--storage",
        default=FOLDER,
        metavar="URI",
        help="where data and run go: a folder, s3://bucket/prefix, or s3 for a local object store that is started",
    )
    args = parser.parse_args(argv)
    if args.storage != "s3":
        return _run(args.storage)
    from cluster.storage import local_server

    server = local_server.start(f"{FOLDER}/objectstore")
    os.environ.update(server.environment)
    try:
        return _run(f"{server.uri}/{FOLDER}", first='eval "$(python -m jobs.objectstore start)" && ')
    finally:
        local_server.stop(server.folder)


def _run(storage: str, first: str = "") -> int:
    """Runs the stages; `first` is what must be typed before a command can see what is stored."""
    begin = time.monotonic()
    run, train, heldout = f"{storage}/{NAME}", f"{storage}/{NAME}/data/train", f"{storage}/{NAME}/data/heldout"
    out = pathlib.Path(FOLDER) / NAME
    out.mkdir(parents=True, exist_ok=True)

    def headline(text: str) -> None:
        print(f"\n[{time.monotonic() - begin:4.0f} s] {text}", flush=True)

    headline(f"1/4 drawing {TRAIN_WORDS:,} words to learn from, and {HELDOUT_WORDS:,} others in other fonts")
    _render(train, TRAIN_WORDS, "train")
    _render(heldout, HELDOUT_WORDS, "heldout")
    headline("2/4 training on two workers")
    code = _train(train, heldout, storage)
    if code:
        return code
    headline("3/4 reading the held-out words")
    code = _evaluate(run, heldout, out)
    headline("4/4 drawing what was read")
    checkpoint = _draw(run, heldout, out)
    headline(f"done\n  {out}/report.png     curves, and what was read right and wrong")
    print(f"  {out}/overlays/      characters and their order on each word\n  {out}/report.json    figures")
    print(f"next: {first}python -m jobs.read YOUR_WORD_IMAGE --checkpoint {checkpoint}")
    return code


def _render(out: str, num_words: int, split: Literal["train", "heldout"]) -> None:
    from cluster.data.render_dataset import render_dataset
    from cluster.data.shards import is_dataset
    from textscanner.render.draw import RenderSettings
    from textscanner.render.fonts import find_fonts, select

    if is_dataset(out):
        print(f"there already: {out}")
        return
    fonts = select(find_fonts(), split)
    seed = TRAIN_SEED if split == "train" else HELDOUT_SEED
    render_dataset(RenderSettings(seed=seed, fonts=fonts, difficulty="easy", split=split), out, num_words)


def _train(train: str, heldout: str, storage: str) -> int:
    from jobs.train import main as train_job

    settings = {
        "train.num_steps": NUM_STEPS,
        "train.global_batch_size": GLOBAL_BATCH,
        "train.validate_every_steps": NUM_STEPS // 3,
        "train.checkpoint_every_steps": NUM_STEPS // 3,
        "train.image_every_steps": NUM_STEPS // 3,
        "optimizer.warmup_steps": 100,
        "optimizer.ema_momentum": 0.99,
    }
    told = [f"{key}={value}" for key, value in settings.items()]
    where = ["--train", train, "--val", heldout, "--storage", storage, "--name", NAME]
    return train_job(["small", *where, "--init", "none", "--workers", "2", "--set", *told])


def _evaluate(run: str, heldout: str, out: pathlib.Path) -> int:
    from jobs.evaluate import main as evaluate

    return evaluate([run, f"heldout={heldout}", "--json", str(out / "report.json")])


def _draw(run: str, heldout: str, out: pathlib.Path) -> str:
    """The first held-out words as files, their readings drawn on them, and the run's report; returns the checkpoint."""
    from cluster.data.shards import read_records
    from cluster.storage.checkpoints import best_checkpoint
    from cluster.storage.location import open_uri
    from cluster.tracking.metrics_writer import REPORT_NAME
    from jobs.read import main as read

    words = out / "words"
    words.mkdir(exist_ok=True)
    for i, record in enumerate(itertools.islice(read_records(heldout), OVERLAYS)):
        (words / f"{i:02d}_{record.text}.jpg").write_bytes(record.image)
    read([str(words), "--checkpoint", run, "--overlay", str(out / "overlays")])
    if "://" in run:
        (out / REPORT_NAME).write_bytes(open_uri(run).join(REPORT_NAME).read_bytes())
    return best_checkpoint(run)


if __name__ == "__main__":
    sys.exit(main())
