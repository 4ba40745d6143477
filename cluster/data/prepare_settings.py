"""Settings of an import: which rows it accepts and how it stores them. Cheap to import: `--help` shows the defaults."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, get_args

from cluster.data.importers.registry import AUTO
from textscanner.errors import UserError

if TYPE_CHECKING:
    from textscanner.charset import Charset

UnknownCharacters = Literal["keep", "reject"]
LabelCase = Literal["known", "unknown"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """Settings of `prepare_dataset`.

    Raises:
      UserError: a value is out of range.
    """

    charset: Charset
    """Decides which characters of a label are unknown."""
    format: str = AUTO
    """One of `registry.FORMAT_NAMES`."""
    split: str | None = None
    """Imports only rows of this split; None for all."""
    labels: str | None = None
    """Name of the label file; None for the format's usual one."""
    max_label_length: int = 30
    """Characters; rows with a longer label are rejected."""
    unknown: UnknownCharacters = "keep"
    """Labels with characters outside the charset: kept as annotated (training maps the characters to the class
    "unknown", scoring leaves such words out), or rejected."""
    case: LabelCase = "known"
    """Whether letters in labels have the case that the image shows; `unknown` for labels that are all in one case.
    Applies where the format does not say: the case of `text_cased` in a jsonl file is known, that of svt is not."""
    max_reject_share: float = 0.5
    """The import fails if a larger share of the rows is rejected; 0 to 1."""
    shard_mib: int = 128
    """Images per shard in MiB, at most; 1 to 1024."""

    def __post_init__(self) -> None:
        if self.unknown not in get_args(UnknownCharacters):
            raise UserError(f"unknown is {self.unknown!r}: must be one of {', '.join(get_args(UnknownCharacters))}")
        if self.case not in get_args(LabelCase):
            raise UserError(f"case is {self.case!r}: must be one of {', '.join(get_args(LabelCase))}")
        if self.max_label_length < 1:
            raise UserError(f"max_label_length is {self.max_label_length}: must be at least 1")
        if not 1 <= self.shard_mib <= 1024:
            raise UserError(f"shard_mib is {self.shard_mib}: must lie in 1..1024; 64 to 256 suits object storage")
        if not 0 <= self.max_reject_share <= 1:
            raise UserError(f"max_reject_share is {self.max_reject_share}: must lie in 0..1")
