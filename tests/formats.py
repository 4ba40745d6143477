"""Writes words in the formats that importers read, byte for byte as each format's own tools do."""

import csv
import io
import json
import pathlib
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile

import cv2
import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.io import savemat

from cluster.data.importers.source import Source
from textscanner.data.annotations import Reject, Word
from textscanner.data.images import decode
from textscanner.data.schema import WordRecord

Records = list[WordRecord]


def read_all(source: Source, rows_per_part: int = 3) -> list[Word | Reject]:
    """All rows of a source, part by part."""
    return [row for part in source.parts(rows_per_part) for row in source.read(part)]


def boxes_of(record: WordRecord) -> np.ndarray:
    """x0, y0, x1, y1 around each character, whole pixels inside the image."""
    size = decode(record.image, "").shape[1::-1]
    low, high = np.floor(record.quads.min(1)), np.ceil(record.quads.max(1))
    return np.concatenate([np.clip(low, 0, size), np.clip(high, 0, size)], 1).astype(int)


def _images(folder: pathlib.Path, records: Records, pattern: str = "{i}.jpg") -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [pattern.format(i=i, text=r.text) for i, r in enumerate(records)]
    for name, record in zip(names, records, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(record.image)
    return names


def jsonl(folder: pathlib.Path, records: Records) -> None:
    rows = []
    for name, record in zip(_images(folder / "images", records), records, strict=True):
        x0, y0, x1, y1 = boxes_of(record).T
        rows.append({"file": name, "text": record.text, "boxes": np.stack([x0, y0, x1 - x0, y1 - y0], 1).tolist()})
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def tsv(folder: pathlib.Path, records: Records) -> None:
    names = _images(folder, records)
    (folder / "labels.tsv").write_text("".join(f"{n}\t{r.text}\n" for n, r in zip(names, records, strict=True)))


def csv_table(folder: pathlib.Path, records: Records) -> None:
    names = _images(folder, records)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "text"), *((n, r.text) for n, r in zip(names, records, strict=True))])


def icdar(folder: pathlib.Path, records: Records) -> None:
    names = _images(folder, records, "word_{i}.png")
    quoted = [record.text.replace("\\", "\\\\").replace('"', '\\"') for record in records]
    lines = [f'{name}, "{text}"\r\n' for name, text in zip(names, quoted, strict=True)]
    (folder / "gt.txt").write_bytes("".join(lines).encode("utf-8-sig"))


def icdar_zip(folder: pathlib.Path, records: Records) -> None:
    icdar(folder / "unpacked", records)
    with zipfile.ZipFile(folder / "ch4_training_word_images_gt.zip", "w") as archive:
        for path in sorted((folder / "unpacked").iterdir()):
            archive.write(path, f"ch4_training_word_images_gt/{path.name}")


def paddleocr(folder: pathlib.Path, records: Records) -> None:
    names = _images(folder, records, "train/word_{i:03d}.jpg")
    lines = [f"{name}\t{record.text}\n" for name, record in zip(names, records, strict=True)]
    (folder / "rec_gt_train.txt").write_text("".join(lines))


def doctr(folder: pathlib.Path, records: Records) -> None:
    names = _images(folder / "images", records, "img_{i}.jpg")
    labels = {name: record.text for name, record in zip(names, records, strict=True)}
    (folder / "labels.json").write_text(json.dumps(labels, ensure_ascii=False))


def easyocr(folder: pathlib.Path, records: Records) -> None:
    names = _images(folder, records)
    lines = [f"{name},{record.text}\n" for name, record in zip(names, records, strict=True)]
    (folder / "labels.csv").write_text("filename,words\n" + "".join(lines))


def trdg(folder: pathlib.Path, records: Records) -> None:
    _images(folder, records, "{text}_{i}.jpg")
    for i, record in enumerate(records):
        lines = [" ".join(map(str, box)) + "\n" for box in boxes_of(record)]
        (folder / f"{record.text}_{i}_boxes.txt").write_text("".join(lines))


def trdg_tesseract(folder: pathlib.Path, records: Records) -> None:
    _images(folder, records, "{i}_{text}.jpg")
    for i, record in enumerate(records):
        height = decode(record.image, "").shape[0]
        lines = [
            f"{character} {x0} {height - y1} {x1} {height - y0} 0\n"
            for character, (x0, y0, x1, y1) in zip(record.text, boxes_of(record), strict=True)
        ]
        (folder / f"{i}_{record.text}.box").write_text("".join(lines))


def trdg_list(folder: pathlib.Path, records: Records) -> None:
    names = _images(folder, records)
    (folder / "labels.txt").write_text("".join(f"{n} {r.text}\n" for n, r in zip(names, records, strict=True)))


def iiit5k(folder: pathlib.Path, records: Records) -> None:
    names = _images(folder, records, "train/{i}_1.png")
    data = np.zeros((1, len(records)), [(f, object) for f in ("ImgName", "GroundTruth", "smallLexi", "mediumLexi")])
    bound = np.zeros((1, len(records)), [(field, object) for field in ("ImgName", "chars", "charBB")])
    for i, (name, record) in enumerate(zip(names, records, strict=True)):
        x0, y0, x1, y1 = boxes_of(record).T
        corners = np.stack([x0 + 1, y0 + 1, x1 - x0, y1 - y0], 1)  # MATLAB counts from 1
        data[0, i] = (name, record.text, np.array([["A"]], object), np.array([["B"]], object))
        bound[0, i] = (name, record.text, corners.astype(np.uint16))
    savemat(folder / "traindata.mat", {"traindata": data})
    savemat(folder / "trainCharBound.mat", {"trainCharBound": bound})


def scene_of(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """The words one below the other on grey, RGB [H, W, 3], and each one's upper left corner [words, 2]."""
    images = [decode(record.image, "") for record in records]
    canvas = np.full((sum(i.shape[0] + 20 for i in images), max(i.shape[1] for i in images) + 40, 3), 128, np.uint8)
    corners, top = [], 10
    for image in images:
        canvas[top : top + image.shape[0], 20 : 20 + image.shape[1]] = image
        corners.append((20, top))
        top += image.shape[0] + 20
    return canvas, np.array(corners, np.float32)


def _write_scene(path: pathlib.Path, records: Records) -> np.ndarray:
    canvas, corners = scene_of(records)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    return corners


def synthtext(folder: pathlib.Path, records: Records) -> None:
    """Scenes of three words. The last one may have a single word: its arrays lose their last axis."""
    groups = [records[i : i + 3] for i in range(0, len(records), 3)]
    cells = {name: np.zeros((1, len(groups)), object) for name in ("imnames", "txt", "wordBB", "charBB")}
    for g, group in enumerate(groups):
        corners = _write_scene(folder / f"{g}" / "ballet_106_0.jpg", group)
        quads = [record.quads + corner for record, corner in zip(group, corners, strict=True)]
        words = []
        for part in quads:
            (x0, y0), (x1, y1) = part.min((0, 1)), part.max((0, 1))
            words.append([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        cells["imnames"][0, g] = np.array([f"{g}/ballet_106_0.jpg"])
        cells["txt"][0, g] = np.array([" ".join(r.text for r in group[:2]), *(r.text for r in group[2:])])
        cells["wordBB"][0, g] = np.array(words, np.float64).transpose(2, 1, 0).squeeze()
        cells["charBB"][0, g] = np.concatenate(quads).transpose(2, 1, 0)
    savemat(folder / "gt.mat", cells)


def svt(folder: pathlib.Path, records: Records) -> None:
    corners = _write_scene(folder / "img" / "14_03.jpg", records)
    root = ElementTree.Element("tagset")
    image = ElementTree.SubElement(root, "image")
    ElementTree.SubElement(image, "imageName").text = "img/14_03.jpg"
    ElementTree.SubElement(image, "lex").text = "LIVING,ROOM"
    rectangles = ElementTree.SubElement(image, "taggedRectangles")
    for record, (x, y) in zip(records, corners.astype(int), strict=True):
        height, width = decode(record.image, "").shape[:2]
        box = {"height": str(height), "width": str(width), "x": str(x), "y": str(y)}
        ElementTree.SubElement(ElementTree.SubElement(rectangles, "taggedRectangle", box), "tag").text = record.text
    ElementTree.ElementTree(root).write(folder / "train.xml", encoding="utf-8", xml_declaration=True)


def lmdb_file(folder: pathlib.Path, records: Records) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for i, record in enumerate(records, 1):
            transaction.put(b"image-%09d" % i, record.image)
            transaction.put(b"label-%09d" % i, record.text.encode())
        transaction.put(b"num-samples", str(len(records)).encode())
    (folder / "lock.mdb").unlink()


def parquet(folder: pathlib.Path, records: Records) -> None:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    half = len(records) // 2
    for i, part in enumerate((records[:half], records[half:])):
        images = [{"bytes": record.image, "path": f"{record.source}"} for record in part]
        table = pa.table({"image": images, "text": [record.text for record in part]})
        pq.write_table(table, folder / "data" / f"train-{i:05d}-of-00002.parquet", row_group_size=2)


def webdataset(folder: pathlib.Path, records: Records) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    half = len(records) // 2
    for shard, part in enumerate((records[:half], records[half:])):
        with tarfile.open(folder / f"words-{shard:06d}.tar", "w") as archive:
            for i, record in enumerate(part):
                x0, y0, x1, y1 = boxes_of(record).T
                boxes = np.stack([x0, y0, x1 - x0, y1 - y0], 1).tolist()
                labels = json.dumps({"text": record.text, "boxes": boxes}).encode()
                for suffix, data in (("jpg", record.image), ("json", labels)):
                    member = tarfile.TarInfo(f"sample{i:04d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


# The function that writes it, the format that `auto` detects, and whether it carries character quads.
FORMATS = {
    "jsonl": (jsonl, "jsonl", True),
    "tsv": (tsv, "tsv", False),
    "csv": (csv_table, "csv", False),
    "lmdb": (lmdb_file, "lmdb", False),
    "synthtext": (synthtext, "synthtext", True),
    "iiit5k": (iiit5k, "iiit5k", True),
    "icdar": (icdar, "icdar", False),
    "svt": (svt, "svt", False),
    "paddleocr": (paddleocr, "paddleocr", False),
    "doctr": (doctr, "doctr", False),
    "easyocr": (easyocr, "easyocr", False),
    "trdg": (trdg, "trdg", True),
    "trdg_tesseract": (trdg_tesseract, "trdg", True),
    "trdg_list": (trdg_list, "trdg", False),
    "parquet": (parquet, "parquet", False),
    "webdataset": (webdataset, "webdataset", True),
}
