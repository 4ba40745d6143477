"""The names of the formats. Imports nothing: `--help` shows them."""

from __future__ import annotations

# Label files that tell a format by their name, in the order in which they are looked for.
LABEL_FILES = {
    "labels.jsonl": "jsonl",
    "labels.tsv": "tsv",
    "labels.csv": "csv",
    "labels.json": "doctr",
    "gt.mat": "synthtext",
    "traindata.mat": "iiit5k",
    "testdata.mat": "iiit5k",
    "train.xml": "svt",
    "test.xml": "svt",
    "gt.txt": "icdar",
    "rec_gt_train.txt": "paddleocr",
    "rec_gt.txt": "paddleocr",
    "rec_gt_test.txt": "paddleocr",
    "train_list.txt": "paddleocr",
    "labels.txt": "trdg",
}
FORMATS = (
    *("auto", "jsonl", "tsv", "csv", "lmdb", "synthtext", "iiit5k", "icdar", "svt", "paddleocr", "doctr", "easyocr"),
    *("trdg", "parquet", "webdataset"),
)
WITH_SPLITS = ("jsonl", "iiit5k", "svt", "parquet")
