"""Rendering at scale: a part of the rows per Ray Data task, the manifest last.

A row depends on (seed, row number) alone and a part is a fixed range of rows, so the bytes are the same for any number
of processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

from cluster.data.dataset_writer import BuildSpec, build, finish, rows_per_part
from cluster.data.shards import Manifest, prepare_destination
from cluster.storage.location import absolute_uri
from textscanner.data.schema import WordRecord
from textscanner.render.draw import RenderSettings, render_word

MAX_SHARD_BYTES = 128 << 20


def render_dataset(
    settings: RenderSettings,
    out_uri: str,
    num_words: int,
    num_cpus: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Renders `num_words` words into a data set at `out_uri`, with a progress bar; goes on where an earlier try ended.

    Raises:
      ValueError: a data set is there already, or nothing can be drawn with these settings.
      StorageError: storage refuses or does not answer.
    """
    if num_words < 1:
        raise ValueError(f"--num-words is {num_words}: must be at least 1")
    out_uri = absolute_uri(out_uri)
    render_word(settings, 0)  # settings that cannot work fail here and not in a task
    told = hashlib.sha256(repr(settings).encode()).hexdigest()
    destination = BuildSpec(out_uri, {"settings": told, "rows": num_words}, MAX_SHARD_BYTES)
    prepare_destination(out_uri, overwrite)
    size = rows_per_part(num_words)
    parts = [(start, min(start + size, num_words)) for start in range(0, num_words, size)]
    built = build(destination, parts, _Draw(settings), num_words, "word", "render", num_cpus)
    origin: dict[str, Any] = {
        "made_by": "jobs.render",
        "seed": settings.seed,
        "difficulty": settings.difficulty,
        "split": settings.split,
        "height_px": settings.height_px,
        "words": settings.words or "wordfreq",
        "without": list(settings.without),
        "photographs": len(settings.photographs),
        "font_families": len(settings.families),
        "font_faces": len(settings.fonts),
    }
    return finish(destination, built, origin)


@dataclasses.dataclass(frozen=True)
class _Draw:
    settings: RenderSettings

    def __call__(self, part: tuple[int, int]) -> Iterator[WordRecord]:
        return (render_word(self.settings, row) for row in range(int(part[0]), int(part[1])))
