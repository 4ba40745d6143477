"""`make quickstart`: words are drawn, a model learns to read them on two workers, and reads words it has never seen.

Every stage that is complete is not done again; training resumes by itself.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Literal

from jobs.command import user_mistakes

NUM_STEPS, GLOBAL_BATCH = 900, 32
TRAIN_WORDS, HELDOUT_WORDS = NUM_STEPS * GLOBAL_BATCH, 1_000  # each word is seen once
TRAIN_SEED, HELDOUT_SEED = 1, 2
OVERLAYS = 24


@user_mistakes
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stages; returns the exit code of the first that fails, else 0."""
    parser = argparse.ArgumentParser(prog="python -m jobs.quickstart", description=__doc__)
    parser.add_argument("--storage", default="runs", metavar="URI", help="where everything goes")
    parser.add_argument("--name", default="quickstart", metavar="NAME", help="the folder in --storage")
    args = parser.parse_args(argv)
    begin = time.monotonic()
    root = pathlib.Path(args.storage) / args.name
    train, heldout = root / "data" / "train", root / "data" / "heldout"

    def headline(text: str) -> None:
        print(f"\n[{time.monotonic() - begin:4.0f} s] {text}", flush=True)

    headline(f"1/4 drawing {TRAIN_WORDS:,} words to learn from, and {HELDOUT_WORDS:,} others in other fonts")
    _render(train, TRAIN_WORDS, "train")
    _render(heldout, HELDOUT_WORDS, "heldout")
    headline("2/4 training on two workers; TensorBoard can watch")
    code = _train(train, heldout, args.storage, args.name)
    if code:
        return code
    headline("3/4 reading the held-out words")
    code = _evaluate(root, heldout)
    headline("4/4 drawing what was read")
    _draw_overlays(root, heldout)
    headline(f"done\n  {root}/report.png     curves, and what was read right and wrong")
    print(f"  {root}/overlays/      characters and their order on each word\n  {root}/report.json    figures")
    print(f"next: python -m jobs.read {_checkpoint(root)} YOUR_WORD_IMAGE")
    return code


def _render(out: pathlib.Path, num_words: int, split: Literal["train", "heldout"]) -> None:
    from cluster.rendering import render_dataset
    from cluster.shards import is_dataset
    from textscanner.render.draw import RenderSettings
    from textscanner.render.fonts import find_fonts, select

    if is_dataset(str(out)):
        print(f"there already: {out}")
        return
    fonts = select(find_fonts(), split)
    seed = TRAIN_SEED if split == "train" else HELDOUT_SEED
    render_dataset(RenderSettings(seed, fonts, difficulty="easy", split=split), str(out), num_words)


def _train(train: pathlib.Path, heldout: pathlib.Path, storage: str, name: str) -> int:
    from jobs.train import main as train_job

    settings = {
        "train.num_steps": NUM_STEPS,
        "train.global_batch": GLOBAL_BATCH,
        "train.validate_every": NUM_STEPS // 3,
        "train.checkpoint_every": NUM_STEPS // 3,
        "train.picture_every": NUM_STEPS // 3,
        "optimizer.warmup_steps": 100,
        "optimizer.ema_momentum": 0.99,
        "optimizer.precision": _precision(),
    }
    told = [f"{key}={value}" for key, value in settings.items()]
    where = ["--train", str(train), "--val", str(heldout), "--storage", storage, "--name", name]
    return train_job(["small", *where, "--workers", "2", "--set", *told])


def _precision() -> str:
    """bfloat16 where the CPU has instructions for it (about a third faster), else float32."""
    cpu = pathlib.Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def _evaluate(root: pathlib.Path, heldout: pathlib.Path) -> int:
    from jobs.evaluate import main as evaluate

    return evaluate([_checkpoint(root), f"heldout={heldout}", "--json", str(root / "report.json")])


def _checkpoint(root: pathlib.Path) -> str:
    from cluster.checkpoints import best_checkpoint

    return best_checkpoint(str(root))


def _draw_overlays(root: pathlib.Path, heldout: pathlib.Path) -> None:
    """The first held-out words as files, and through `jobs.read` their readings drawn on them."""
    from cluster.shards import read_records
    from jobs.read import main as read

    words = root / "words"
    words.mkdir(exist_ok=True)
    for i, record in enumerate(itertools.islice(read_records(str(heldout)), OVERLAYS)):
        (words / f"{i:02d}_{record.text}.jpg").write_bytes(record.image)
    read([_checkpoint(root), str(words), "--overlay", str(root / "overlays")])


if __name__ == "__main__":
    sys.exit(main())
