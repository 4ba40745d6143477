"""The record of a word: its encoded image, its text and, where known, its character quads.

The renderer, the importers, ingest and evaluation exchange these records, and data sets store them as Parquet rows
(`ARROW_SCHEMA`). Images stay encoded (JPEG, PNG, whatever was imported); only the code that needs pixels decodes them.
A data set is a folder of shards plus `manifest.json`, which is written last: a folder without it is not a data set.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

SCHEMA_VERSION = 2
DATASET_MANIFEST_NAME = "manifest.json"

IMAGE, TEXT, QUADS, SOURCE, CASE_KNOWN = "image", "text", "quads", "source", "case_known"

ARROW_SCHEMA = pa.schema(
    [
        pa.field(IMAGE, pa.binary(), nullable=False),
        pa.field(TEXT, pa.string(), nullable=False),
        # One quad per character of `text`: x, y of TL TR BR BL in pixels of the image. Null: quads unknown.
        pa.field(QUADS, pa.list_(pa.list_(pa.float32(), 8)), nullable=True),
        # Origin of the row (a file name, a font, an archive member): for tracing an error, not used in training.
        pa.field(SOURCE, pa.string(), nullable=False),
        # False: the label has no case information, a letter of the image may be of either case.
        pa.field(CASE_KNOWN, pa.bool_(), nullable=False),
    ]
)


@dataclasses.dataclass(frozen=True, eq=False)
class WordRecord:
    """One labelled word.

    Attributes:
      image: an encoded image that `cv2.imdecode` reads.
      text: the label as annotated; NFC, at least one character.
      quads: float32 [len(text), 4, 2], pixels of the image, corners TL TR BR BL; None where unknown.
      source: origin of the row: a file name, a font, an archive member.
      case_known: whether the letters of `text` have the case that the image shows. False for labels that were written
        in one case, whatever the image shows; upper and lower case are then both correct.
    """

    image: bytes
    text: str
    quads: np.ndarray | None
    source: str
    case_known: bool = True

    def __post_init__(self) -> None:
        if self.quads is not None and self.quads.shape != (len(self.text), 4, 2):
            raise ValueError(
                f"{self.source}: quads have shape {self.quads.shape}, expected {(len(self.text), 4, 2)}: "
                "one quad of four x, y corners per character, or None"
            )


def to_table(records: list[WordRecord]) -> pa.Table:
    """Converts records to an Arrow table of `ARROW_SCHEMA`, in order."""
    return pa.table(
        {
            IMAGE: [r.image for r in records],
            TEXT: [r.text for r in records],
            QUADS: [None if r.quads is None else r.quads.reshape(-1, 8).tolist() for r in records],
            SOURCE: [r.source for r in records],
            CASE_KNOWN: [r.case_known for r in records],
        },
        schema=ARROW_SCHEMA,
    )


def from_table(table: pa.Table) -> list[WordRecord]:
    """Converts the rows of a table of `ARROW_SCHEMA` to records, in order."""
    return [
        WordRecord(
            image=row[IMAGE],
            text=row[TEXT],
            quads=None if row[QUADS] is None else np.asarray(row[QUADS], np.float32).reshape(-1, 4, 2),
            source=row[SOURCE],
            case_known=row[CASE_KNOWN],
        )
        for row in table.to_pylist()
    ]
