"""Rendering at scale: one Ray Data task per shard, the manifest last.

A row depends on (seed, row number) alone and a shard is a fixed range of rows, so the bytes are the same for any number
of processes.
"""

from __future__ import annotations

import functools

import numpy as np
import tqdm

from cluster.session import local_session
from cluster.shards import Manifest, ShardInfo, prepare_destination, write_manifest, write_shard
from cluster.storage import absolute_uri
from cluster.tasks import map_in_order
from textscanner.render.draw import RenderSettings, render_word

WORDS_PER_SHARD = 2048


def render_dataset(
    settings: RenderSettings,
    out_uri: str,
    num_words: int,
    num_cpus: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Renders `num_words` words into a data set at `out_uri`, with a progress bar.

    Raises:
      ValueError: a data set is there already, or nothing can be drawn with these settings.
    """
    if num_words < 1:
        raise ValueError(f"--num-words is {num_words}: must be at least 1")
    out_uri = absolute_uri(out_uri)
    render_word(settings, 0)  # settings that cannot work fail here and not in a task
    prepare_destination(out_uri, overwrite)
    starts = range(0, num_words, WORDS_PER_SHARD)
    ranges = [{"start": start, "stop": min(start + WORDS_PER_SHARD, num_words)} for start in starts]
    infos: list[ShardInfo] = []
    with local_session(num_cpus), tqdm.tqdm(total=num_words, unit="word", desc="render") as bar:
        for row in map_in_order(functools.partial(_render_shard, settings, out_uri), ranges):
            infos.append(row["info"])
            bar.update(row["info"].num_rows)
    origin = {
        "made_by": "jobs.render",
        "seed": settings.seed,
        "difficulty": settings.difficulty,
        "split": settings.split,
        "height_px": settings.height_px,
        "words": settings.words or "wordfreq",
        "font_families": len(settings.families),
        "font_faces": len(settings.fonts),
    }
    return write_manifest(out_uri, infos, set_aside={}, origin=origin)


def _render_shard(settings: RenderSettings, out_uri: str, row: dict[str, np.integer]) -> dict[str, ShardInfo]:
    start, stop = int(row["start"]), int(row["stop"])
    records = [render_word(settings, i) for i in range(start, stop)]
    return {"info": write_shard(out_uri, start // WORDS_PER_SHARD, records)}
