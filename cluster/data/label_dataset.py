"""Copies a data set and adds the character quads that a trained network finds; a row group per Ray Data task."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from cluster.data.dataset_writer import BuildSpec, PartRow, build_shards, finalize
from cluster.data.importers.source import batched
from cluster.data.shards import Manifest, RowGroupRef, prepare_destination, read_manifest, read_row_group
from cluster.storage.checkpoints import fetch_checkpoint
from cluster.storage.location import absolute_uri
from textscanner.checkpoint_files import shipped_weights
from textscanner.data import schema
from textscanner.data.images import decode
from textscanner.data.schema import WordRecord
from textscanner.errors import UserError
from textscanner.inference.postprocess import READ_BATCH

if TYPE_CHECKING:  # importing it loads TensorFlow
    from textscanner.inference.pseudo_labels import PseudoLabeler

MAX_SHARD_BYTES = 128 << 20
LABELLED, HAD_QUADS, NOT_LABELLED = "labelled", "had_quads", "not_labelled"  # counts, also in the manifest's origin


@dataclasses.dataclass(frozen=True)
class LabelResult:
    """The new data set.

    Attributes:
      labelled: words that were given quads.
      had_quads: words that had quads before.
      not_labelled: words without quads, whether copied or left out.
    """

    manifest: Manifest
    labelled: int
    had_quads: int
    not_labelled: int


def label_dataset(
    *,
    checkpoint: str,
    source_uri: str,
    out_uri: str,
    min_confidence: float,
    only_labelled: bool = False,
    overwrite: bool = False,
) -> LabelResult:
    """Copies a data set with quads added where the reading equals the label. The same call resumes an interrupted one.

    Args:
      checkpoint: URI of a checkpoint or run, or the name of bundled weights.
      min_confidence: words read with a lower confidence get no quads; 0 to 1.
      only_labelled: leaves words without quads out of the new data set.
      overwrite: replaces an existing data set.

    Raises:
      UserError: the checkpoint or the data set cannot be read, the new data set exists already, or it would be empty.
      StorageError: storage refuses or does not answer.
    """
    if not 0 <= min_confidence <= 1:
        raise UserError(f"min_confidence is {min_confidence}: must lie in 0..1")
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
    spec = BuildSpec(out_uri, identity, MAX_SHARD_BYTES)
    prepare_destination(out_uri, overwrite)
    row_groups = [ref for shard in manifest.shards for ref in shard.refs()]
    result = build_shards(
        spec,
        row_groups,
        _LabelRowGroup(folder, source_uri, min_confidence, only_labelled),
        total=manifest.num_rows,
        unit="word",
        description="label",
    )
    if not sum(shard.num_rows for shard in result.shards):
        raise UserError(
            f"min_confidence is {min_confidence:g}: no word of {source_uri} is read as labelled with that confidence"
        )
    origin = {"made_by": "jobs.label", "min_confidence": min_confidence, "only_labelled": only_labelled}
    counts = (result.counts.get(name, 0) for name in (LABELLED, HAD_QUADS, NOT_LABELLED))
    return LabelResult(finalize(spec, result, origin | result.counts), *counts)


@dataclasses.dataclass(frozen=True)
class _LabelRowGroup:
    checkpoint_folder: str
    source_uri: str
    min_confidence: float
    only_labelled: bool

    def __call__(self, ref: RowGroupRef) -> Iterator[PartRow | str]:
        labeller = _labeller(self.checkpoint_folder, self.min_confidence)
        for records in batched(schema.from_table(read_row_group(self.source_uri, ref)), READ_BATCH):
            yield from self._label(labeller, records)

    def _label(self, labeller: PseudoLabeler, records: tuple[WordRecord, ...]) -> Iterator[PartRow | str]:
        """Yields the records of a batch, each preceded by the name of its count."""
        without_quads = [record for record in records if record.quads is None]
        images: list[np.ndarray] = [decode(record.image, record.source) for record in without_quads]
        texts = [record.text for record in without_quads]
        case_known = [record.case_known for record in without_quads]
        new_quads = iter(labeller.quads(images, texts, case_known) if images else [])
        for record in records:
            if record.quads is not None:
                yield HAD_QUADS
                yield record
                continue
            quads = next(new_quads)
            yield NOT_LABELLED if quads is None else LABELLED
            if quads is not None or not self.only_labelled:
                yield dataclasses.replace(record, quads=quads)


@functools.lru_cache(maxsize=1)
def _labeller(checkpoint_folder: str, min_confidence: float) -> PseudoLabeler:
    """Loaded once per worker process."""
    from cluster.logs import load_tensorflow

    load_tensorflow()
    import textscanner
    from textscanner.inference.pseudo_labels import PseudoLabeler

    return PseudoLabeler(textscanner.load(checkpoint_folder), min_confidence)
