"""`make quickstart`: renders words, trains a model on two workers, and reads words that were not in the training set.

A stage that is complete is not repeated; an interrupted training resumes.
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

from jobs.cli import check_render_extra, cli_errors, program

FOLDER, NAME = "runs", "quickstart"
NUM_STEPS, GLOBAL_BATCH_SIZE = 900, 32
TRAIN_WORDS, HELDOUT_WORDS = NUM_STEPS * GLOBAL_BATCH_SIZE, 1_000  # one epoch: each word is trained on once
TRAIN_SEED, HELDOUT_SEED = 1, 2
NUM_OVERLAYS = 24


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program("quickstart"), description=__doc__)
    parser.add_argument(
        "--storage",
        default=FOLDER,
        metavar="URI",
        help="where data and run are stored: a folder, s3://bucket/prefix, or s3 to start a local S3 server",
    )
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stages; returns the exit code of the first that fails, else 0."""
    args = _parser().parse_args(argv)
    check_render_extra()
    if args.storage != "s3":
        return _run(args.storage)
    from cluster.storage import local_server

    server = local_server.start(f"{FOLDER}/objectstore")
    os.environ.update(server.environment)
    try:
        return _run(f"{server.uri}/{FOLDER}", setup=f'eval "$({program("objectstore")} start)" && ')
    finally:
        local_server.stop(server.folder)


def _run(storage: str, setup: str = "") -> int:
    """Runs the stages; returns the exit code of the first that fails, else 0.

    Args:
      setup: shell code that makes the storage available to a later command.
    """
    start = time.monotonic()
    run, train, heldout = f"{storage}/{NAME}", f"{storage}/{NAME}/data/train", f"{storage}/{NAME}/data/heldout"
    out = pathlib.Path(FOLDER) / NAME
    out.mkdir(parents=True, exist_ok=True)

    def headline(text: str) -> None:
        print(f"\n[{time.monotonic() - start:4.0f} s] {text}", flush=True)

    headline(f"1/4 rendering {TRAIN_WORDS:,} training words and {HELDOUT_WORDS:,} held-out words in other fonts")
    _render(train, TRAIN_WORDS, "train")
    _render(heldout, HELDOUT_WORDS, "heldout")
    headline("2/4 training on two workers")
    exit_code = _train(train, heldout, storage)
    if exit_code:
        return exit_code
    headline("3/4 evaluating on the held-out words")
    exit_code = _evaluate(run, heldout, out)
    headline("4/4 drawing the readings")
    checkpoint = _draw_overlays(run, heldout, out)
    headline(f"done\n  {out}/report.png     training curves, correct and incorrect readings")
    print(f"  {out}/overlays/      characters and their order on each word\n  {out}/report.json    scores")
    print(f"next: {setup}{program('read')} YOUR_WORD_IMAGE --checkpoint {checkpoint}")
    return exit_code


def _render(out: str, num_words: int, split: Literal["train", "heldout"]) -> None:
    from cluster.data.render_dataset import render_dataset
    from cluster.data.shards import is_dataset
    from textscanner.render.draw import RenderSettings
    from textscanner.render.fonts import find_fonts, select

    if is_dataset(out):
        print(f"exists already: {out}")
        return
    fonts = select(find_fonts(), split)
    seed = TRAIN_SEED if split == "train" else HELDOUT_SEED
    render_dataset(RenderSettings(seed=seed, fonts=fonts, difficulty="easy", split=split), out, num_words=num_words)


def _train(train: str, heldout: str, storage: str) -> int:
    from jobs.train import main as train_command

    settings = {
        "train.num_steps": NUM_STEPS,
        "train.global_batch_size": GLOBAL_BATCH_SIZE,
        "train.validate_every_steps": NUM_STEPS // 3,
        "train.checkpoint_every_steps": NUM_STEPS // 3,
        "train.image_every_steps": NUM_STEPS // 3,
        "optimizer.warmup_steps": 100,
        "optimizer.ema_momentum": 0.99,
    }
    assignments = [f"{key}={value}" for key, value in settings.items()]
    uris = ["--train", train, "--val", heldout, "--storage", storage, "--name", NAME]
    return train_command(["small", *uris, "--init", "none", "--workers", "2", "--set", *assignments])


def _evaluate(run: str, heldout: str, out: pathlib.Path) -> int:
    from jobs.evaluate import main as evaluate_command

    return evaluate_command([run, f"heldout={heldout}", "--json", str(out / "report.json")])


def _draw_overlays(run: str, heldout: str, out: pathlib.Path) -> str:
    """Writes the first held-out words, their overlays and the run's report to `out`; returns the best checkpoint."""
    from cluster.data.shards import read_records
    from cluster.storage.checkpoints import best_checkpoint
    from cluster.storage.location import open_uri
    from cluster.tracking.metrics_writer import REPORT_NAME
    from jobs.read import main as read_command

    words = out / "words"
    words.mkdir(exist_ok=True)
    for i, record in enumerate(itertools.islice(read_records(heldout), NUM_OVERLAYS)):
        (words / f"{i:02d}_{record.text}.jpg").write_bytes(record.image)
    read_command([str(words), "--checkpoint", run, "--overlay", str(out / "overlays")])
    if "://" in run:  # a run in a folder has its report there already
        (out / REPORT_NAME).write_bytes(open_uri(run).join(REPORT_NAME).read_bytes())
    return best_checkpoint(run)


if __name__ == "__main__":
    sys.exit(main())
