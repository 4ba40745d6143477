"""Writing a data set anew with the character quads that a trained network finds, a row group per Ray Data task."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from cluster.data.dataset_writer import BuildSpec, PartRow, build, finish
from cluster.data.importers.source import batched
from cluster.data.shards import Manifest, RowGroupRef, prepare_destination, read_manifest, read_row_group
from cluster.storage.checkpoints import fetch_checkpoint
from cluster.storage.location import absolute_uri
from textscanner.checkpoint_files import shipped_weights
from textscanner.data import schema
from textscanner.data.images import decode
from textscanner.data.schema import WordRecord
from textscanner.inference.postprocess import READ_BATCH

if TYPE_CHECKING:  # importing it loads TensorFlow
    from textscanner.inference.pseudo_labels import Labeller

MAX_SHARD_BYTES = 128 << 20
LABELLED, HAD_QUADS, NOT_LABELLED = "labelled", "had_quads", "not_labelled"


@dataclasses.dataclass(frozen=True)
class Labelled:
    """What became of the rows: given quads, had them before, left without (kept, or left out if that was asked)."""

    manifest: Manifest
    labelled: int
    had_quads: int
    not_labelled: int


def label_dataset(
    checkpoint: str, source_uri: str, out_uri: str, min_confidence: float, only_labelled: bool, overwrite: bool = False
) -> Labelled:
    """Writes the data set with quads where the reading equals the label; goes on where an earlier try ended.

    Raises:
      ValueError: the checkpoint or the data set cannot be read, the destination is taken, or nothing is left to write.
      StorageError: storage refuses or does not answer.
    """
    if not 0 <= min_confidence <= 1:
        raise ValueError(f"--min-confidence is {min_confidence}: must lie in 0..1")
    source_uri, out_uri = absolute_uri(source_uri), absolute_uri(out_uri)
    folder = fetch_checkpoint(checkpoint if checkpoint in shipped_weights() else absolute_uri(checkpoint))
    manifest = read_manifest(source_uri)
    identity = {
        "checkpoint": checkpoint,
        "source": source_uri,
        "content": manifest.content_hash,
        "min_confidence": min_confidence,
        "only_labelled": only_labelled,
    }
    destination = BuildSpec(out_uri, identity, MAX_SHARD_BYTES)
    prepare_destination(out_uri, overwrite)
    groups = [ref for shard in manifest.shards for ref in shard.refs()]
    work = _Label(folder, source_uri, min_confidence, only_labelled)
    built = build(destination, groups, work, manifest.num_rows, "word", "label")
    if not sum(shard.num_rows for shard in built.shards):
        raise ValueError(f"no word of {source_uri} is read as labelled with confidence {min_confidence:g} or more")
    origin = {"made_by": "jobs.label", "min_confidence": min_confidence, "only_labelled": only_labelled}
    counts = (built.notes.get(name, 0) for name in (LABELLED, HAD_QUADS, NOT_LABELLED))
    return Labelled(finish(destination, built, origin | built.notes), *counts)


@dataclasses.dataclass(frozen=True)
class _Label:
    folder: str
    source_uri: str
    min_confidence: float
    only_labelled: bool

    def __call__(self, ref: RowGroupRef) -> Iterator[PartRow | str]:
        labeller = _labeller(self.folder, self.min_confidence)
        for records in batched(schema.from_table(read_row_group(self.source_uri, ref)), READ_BATCH):
            yield from self._batch(labeller, records)

    def _batch(self, labeller: Labeller, records: tuple[WordRecord, ...]) -> Iterator[PartRow | str]:
        wanted = [record for record in records if record.quads is None]
        images: list[np.ndarray] = [decode(record.image, record.source) for record in wanted]
        found = iter(labeller.quads(images, [record.text for record in wanted]) if wanted else [])
        for record in records:
            quads = record.quads if record.quads is not None else next(found)
            yield HAD_QUADS if record.quads is not None else LABELLED if quads is not None else NOT_LABELLED
            if quads is not None or not self.only_labelled:
                yield dataclasses.replace(record, quads=quads)


@functools.lru_cache(maxsize=1)
def _labeller(folder: str, min_confidence: float) -> Labeller:
    """Loaded once per worker process."""
    from cluster.logs import load_tensorflow

    load_tensorflow()
    import textscanner
    from textscanner.inference.pseudo_labels import Labeller

    return Labeller(textscanner.load(folder), min_confidence)
