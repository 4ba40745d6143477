"""The table of formats, and how the source of a URI is opened. `auto` detects a format by the files that it requires.

Importing this module is cheap, so that `--help` can list the formats: a reader is named in the table and imported when
a source is opened. Detection never lists a whole bucket.
"""

from __future__ import annotations

import dataclasses
import itertools
import pkgutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from textscanner.errors import UserError

if TYPE_CHECKING:  # importing it loads pyarrow and boto3
    from cluster.data.importers.source import Files, Source

AUTO = "auto"
DEFAULT_SPLIT = "train"
MAX_LISTED_NAMES = 1000  # files of a folder without a known label file that detection looks at


@dataclasses.dataclass(frozen=True)
class Format:
    """One row of the table.

    Attributes:
      name: as in `--format`.
      reader: `module:class` in this package. The class takes the URI, then `label_file` if the format has label files,
        and `split` if the format has splits that are not a label file each.
      label_files: usual names; `{split}` stands for the split, each of which has a label file of its own.
      data_files: names of files that hold images and labels together.
      suffixes: endings of files that hold images and labels together.
      has_splits: whether rows belong to splits such as `train` and `test`.
      names_are_labels: whether images may carry their text in their own names instead of in a label file.
    """

    name: str
    reader: str
    label_files: tuple[str, ...] = ()
    data_files: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    has_splits: bool = False
    names_are_labels: bool = False

    @property
    def has_split_files(self) -> bool:
        """Whether each split has its own label file."""
        return any("{split}" in name for name in self.label_files)

    def label_file_names(self, *splits: str) -> list[str]:
        """The usual names of the label file of these splits."""
        return list(dict.fromkeys(name.format(split=split) for split in splits for name in self.label_files))


# In the order of detection: the first format whose file exists is chosen.
_FORMATS = (
    Format("lmdb", "packed:Lmdb", data_files=("data.mdb",), suffixes=(".mdb",)),
    Format("jsonl", "labels:JsonLines", label_files=("labels.jsonl",), has_splits=True),
    Format("tsv", "labels:TabSeparated", label_files=("labels.tsv",)),
    Format("csv", "labels:CommaSeparated", label_files=("labels.csv",)),
    Format("easyocr", "labels:EasyOcr", label_files=("labels.csv",)),
    Format("doctr", "labels:DocTr", label_files=("labels.json",)),
    Format("synthtext", "scenes:SynthText", label_files=("gt.mat",)),
    Format("iiit5k", "labels:Iiit5k", label_files=("{split}data.mat",), has_splits=True),
    Format("svt", "scenes:StreetViewText", label_files=("{split}.xml",), has_splits=True),
    Format("icdar", "labels:Icdar", label_files=("gt.txt",)),
    Format(
        "paddleocr",
        "labels:PaddleOcr",
        label_files=("rec_gt_train.txt", "rec_gt.txt", "rec_gt_test.txt", "train_list.txt"),
    ),
    Format("trdg", "labels:Trdg", label_files=("labels.txt",), names_are_labels=True),
    Format("parquet", "packed:ParquetFiles", suffixes=(".parquet",), has_splits=True),
    Format("webdataset", "packed:TarShards", suffixes=(".tar", ".tar.gz", ".tgz")),
)
FORMATS = {format_.name: format_ for format_ in _FORMATS}
FORMAT_NAMES = (AUTO, *FORMATS)
FORMATS_WITH_SPLITS = tuple(format_.name for format_ in _FORMATS if format_.has_splits)


def open_source(
    uri: str, format_name: str = AUTO, *, split: str | None = None, label_file: str | None = None
) -> Source:
    """Opens the labelled images of a URI.

    Args:
      uri: a folder, a file, a zip or an `s3://` prefix.
      format_name: one of FORMAT_NAMES.
      split: None for all rows; formats with a label file per split then read DEFAULT_SPLIT.
      label_file: the label file's name inside the URI; None for the format's usual ones.

    Raises:
      UserError: the URI holds no known format, or the format has no splits.
      StorageError: storage refuses or does not answer.
    """
    from cluster.storage.location import open_uri

    if format_name not in FORMAT_NAMES:
        raise UserError(f"format is {format_name!r}: must be one of {', '.join(FORMAT_NAMES)}")
    location = open_uri(uri)
    if location.is_local and not location.exists():
        raise UserError(f"{uri} does not exist: give a folder, a file or an s3:// prefix with labelled images")
    format_ = FORMATS[_detect(uri, label_file) if format_name == AUTO else format_name]
    if split is not None and not format_.has_splits:
        raise UserError(
            f"split is {split!r}: the format {format_.name} has no splits, only {', '.join(FORMATS_WITH_SPLITS)} do"
        )
    arguments: dict[str, str | None] = {}
    if format_.label_files:
        arguments["label_file"] = _find_label_file(uri, format_, split, label_file)
    if format_.has_splits and not format_.has_split_files:
        arguments["split"] = split
    return _reader(format_)(uri, **arguments)


def _reader(format_: Format) -> Callable[..., Source]:
    """Imports the format's class."""
    return cast("Callable[..., Source]", pkgutil.resolve_name(f"{__package__}.{format_.reader}"))


def _find_label_file(uri: str, format_: Format, split: str | None, label_file: str | None) -> str:
    """The name of the label file that exists; empty if the images' names are the labels."""
    from cluster.data.importers.source import has, open_files

    files = open_files(uri)
    candidates = [label_file] if label_file else format_.label_file_names(split or DEFAULT_SPLIT)
    for name in candidates:
        if has(files, name):
            return name
    if format_.names_are_labels and label_file is None:
        return ""
    raise UserError(f"{uri} has no {' or '.join(candidates)}: give the name of its label file (labels)")


def _detect(uri: str, label_file: str | None) -> str:
    """The name of the format that a URI holds."""
    from cluster.data.importers.labels import is_trdg_name
    from cluster.data.importers.source import has, open_files
    from textscanner.data.schema import DATASET_MANIFEST_NAME

    by_suffix = _format_of_suffix([uri])
    if by_suffix:
        return by_suffix
    files = open_files(uri)
    if label_file:
        return _format_of_label_file(files, label_file, uri)
    if has(files, DATASET_MANIFEST_NAME):
        raise UserError(f"{uri} is already a prepared data set: train on it directly")
    for format_ in _FORMATS:
        for name in (*format_.data_files, *format_.label_file_names("train", "test")):
            if has(files, name):
                return _format_of_label_file(files, name, uri) if format_.label_files else format_.name
    first_names = list(itertools.islice(files.names(), MAX_LISTED_NAMES))
    by_suffix = _format_of_suffix(first_names, [f for f in _FORMATS if not f.data_files])
    if by_suffix:
        return by_suffix
    if any(map(is_trdg_name, first_names)):
        return "trdg"
    raise UserError(
        f"{uri} holds no labelled images in a known format. It holds {', '.join(first_names[:5]) or 'no files'}. "
        f"Looked for {', '.join(_required_files())}: set the format (format) or the name of the label file (labels)"
    )


def _required_files() -> list[str]:
    """What detection looks for, as a message lists it."""
    names = [name for f in _FORMATS for name in (*f.data_files, *f.label_file_names("train", "test"))]
    return list(dict.fromkeys(names)) + [f"*{f.suffixes[0]}" for f in _FORMATS if f.suffixes and not f.data_files]


def _format_of_suffix(names: Sequence[str], formats: Sequence[Format] = _FORMATS) -> str | None:
    """The first of the formats with a suffix that one of the names ends with."""
    for format_ in formats:
        if format_.suffixes and any(name.lower().endswith(format_.suffixes) for name in names):
            return format_.name
    return None


def _format_of_label_file(files: Files, label_file: str, uri: str) -> str:
    """The format of a label file: by its usual name, or by its first line if the name is unusual or not specific.

    `labels.csv`, `gt.txt` and `labels.txt` are used by several tools.
    """
    from cluster.data.importers.source import text_lines

    base_name = label_file.rpartition("/")[2]
    usual = next((f.name for f in _FORMATS if base_name in f.label_file_names("train", "test")), None)
    if usual not in (None, "csv", "icdar", "trdg"):
        return str(usual)
    first_line = next(iter(text_lines(files, label_file, uri)), "").strip()
    if usual == "csv" or label_file.endswith(".csv"):
        return "easyocr" if first_line.lower() == "filename,words" else "csv"
    if first_line.endswith('"') and "," in first_line:
        return "icdar"
    if "\t" in first_line:
        return "paddleocr"
    if label_file.endswith(".jsonl") or first_line.startswith("{"):
        return "jsonl"
    return usual or "tsv"
