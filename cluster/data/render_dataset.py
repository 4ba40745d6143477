"""Renders a data set in parallel: one Ray Data task per part, the manifest last.

A row depends on the seed and its number alone and a part is a fixed range of rows, so the bytes are the same for any
number of processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

from cluster.data.dataset_writer import BuildSpec, build_shards, finalize, rows_per_part
from cluster.data.shards import Manifest, prepare_destination
from cluster.storage.location import absolute_uri
from textscanner.data.schema import WordRecord
from textscanner.errors import UserError
from textscanner.render.draw import RenderSettings, render_word

MAX_SHARD_BYTES = 128 << 20


def render_dataset(
    settings: RenderSettings,
    out_uri: str,
    *,
    num_words: int,
    num_cpus: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Renders words into a data set, with a progress bar. The same call resumes an interrupted one.

    Args:
      settings: what is rendered.
      out_uri: folder or object storage prefix of the new data set.
      num_words: rows of the data set, at least 1.
      num_cpus: parallel tasks; None takes all cores.
      overwrite: replaces an existing data set.

    Raises:
      UserError: the data set exists already, or the settings cannot be rendered.
      StorageError: storage refuses the request or does not answer.
    """
    if num_words < 1:
        raise UserError(f"num_words is {num_words}: must be at least 1")
    out_uri = absolute_uri(out_uri)
    render_word(settings, 0)  # unusable settings fail here and not in a task
    settings_hash = hashlib.sha256(repr(settings).encode()).hexdigest()
    spec = BuildSpec(out_uri, {"settings": settings_hash, "rows": num_words}, MAX_SHARD_BYTES)
    prepare_destination(out_uri, overwrite)
    size = rows_per_part(num_words)
    parts = [(start, min(start + size, num_words)) for start in range(0, num_words, size)]
    result = build_shards(
        spec,
        parts,
        _RenderPart(settings),
        total=num_words,
        unit="word",
        description="render",
        num_cpus=num_cpus,
    )
    origin: dict[str, Any] = {
        "made_by": "jobs.render",
        "seed": settings.seed,
        "difficulty": settings.difficulty,
        "split": settings.split,
        "height_px": settings.height_px,
        "words": settings.words or "wordfreq",
        "disabled_effects": list(settings.disable),
        "num_backgrounds": len(settings.backgrounds),
        "font_families": len(settings.families),
        "font_faces": len(settings.fonts),
    }
    return finalize(spec, result, origin)


@dataclasses.dataclass(frozen=True)
class _RenderPart:
    """Renders the rows start to stop of a part."""

    settings: RenderSettings

    def __call__(self, part: tuple[int, int]) -> Iterator[WordRecord]:
        return (render_word(self.settings, row) for row in range(int(part[0]), int(part[1])))
