"""A URI -> its source. `auto` looks for the files that a format cannot be without; it never lists a whole bucket."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from cluster.data.importers.formats import FORMATS, LABEL_FILES, WITH_SPLITS
from cluster.data.importers.labels import LabelledImages, is_trdg_name
from cluster.data.importers.packed import TAR_SUFFIXES, Lmdb, ParquetFiles, TarShards
from cluster.data.importers.scenes import Scenes
from cluster.data.importers.source import Files, Source, has, open_files, text_lines
from cluster.storage.location import open_uri
from textscanner.data.schema import DATASET_MANIFEST_NAME

FIRST_NAMES = 1000  # of a folder without a known label file are looked at


def open_source(uri: str, form: str = "auto", split: str | None = None, labels: str | None = None) -> Source:
    """The labelled images of a URI.

    Args:
      form: one of FORMATS.
      split: of formats that have splits.
      labels: the label file's name, where it is not the usual one.

    Raises:
      ValueError: nothing known is there, or the format has no splits.
      StorageError: storage does not answer.
    """
    if form not in FORMATS:
        raise ValueError(f"--format is {form!r}: must be one of {', '.join(FORMATS)}")
    place = open_uri(uri)
    if place.is_local and not place.exists():
        raise ValueError(f"{uri} does not exist: give a folder, a file or an s3:// prefix with labelled images")
    if form == "auto":
        form = _detect(uri, labels)
    if split is not None and form not in WITH_SPLITS:
        raise ValueError(f"--split is {split!r}: the format {form} has no splits, only {', '.join(WITH_SPLITS)} do")
    return _SOURCES.get(form, _labelled)(uri, form, split, labels)


def _labelled(uri: str, form: str, split: str | None, labels: str | None) -> Source:
    files = open_files(uri)
    usual = [name for name, known in LABEL_FILES.items() if known == form]
    if form == "easyocr":
        usual = ["labels.csv"]
    if form in ("iiit5k", "svt"):
        split = split or "train"
        usual = [f"{split}.xml" if form == "svt" else f"{split}data.mat"]
    found = next((name for name in ([labels] if labels else usual) if has(files, name)), None)
    if found is None and not (form == "trdg" and labels is None):
        raise ValueError(f"{uri} has no {labels or ' or '.join(usual)}: name its label file with --labels")
    if form in ("synthtext", "svt"):
        return Scenes(uri, form, found or "")
    return LabelledImages(uri, form, found or "", split)


_SOURCES: dict[str, Callable[[str, str, str | None, str | None], Source]] = {
    "lmdb": lambda uri, *_: Lmdb(uri),
    "parquet": lambda uri, _form, split, _labels: ParquetFiles(uri, split),
    "webdataset": lambda uri, *_: TarShards(uri),
}


def _detect(uri: str, labels: str | None) -> str:
    lower = uri.lower()
    for suffixes, form in (((".mdb",), "lmdb"), ((".parquet",), "parquet"), (TAR_SUFFIXES, "webdataset")):
        if lower.endswith(suffixes):
            return form
    files = open_files(uri)
    if labels:
        return _told_by(files, labels, uri, LABEL_FILES.get(labels.rpartition("/")[2], ""))
    if has(files, DATASET_MANIFEST_NAME):
        raise ValueError(f"{uri} is a prepared data set already: train on it as it is")
    if has(files, "data.mdb"):
        return "lmdb"
    for name, form in LABEL_FILES.items():
        if has(files, name):
            return _told_by(files, name, uri, form)
    first = list(itertools.islice(files.names(), FIRST_NAMES))
    for suffixes, form in (((".parquet",), "parquet"), (TAR_SUFFIXES, "webdataset")):
        if any(name.lower().endswith(suffixes) for name in first):
            return form
    if any(map(is_trdg_name, first)):
        return "trdg"
    there = ", ".join(first[:5]) or "nothing"
    raise ValueError(
        f"{uri} holds no labelled images of a known format; there is {there}. Looked for data.mdb, "
        f"{', '.join(LABEL_FILES)}, *.parquet, *.tar: see --format and --labels"
    )


def _told_by(files: Files, name: str, uri: str, form: str) -> str:
    """The format of a label file; names that several formats share are told apart by the first line."""
    if form not in ("", "csv", "icdar", "trdg"):
        return form
    first = next(iter(text_lines(files, name, uri)), "").strip()
    if form == "csv" or name.endswith(".csv"):
        return "easyocr" if first.lower() == "filename,words" else "csv"
    if first.endswith('"') and "," in first:
        return "icdar"
    if "\t" in first:
        return "paddleocr"
    if name.endswith(".jsonl") or first.startswith("{"):
        return "jsonl"
    return form or "tsv"
