"""Small real inputs for tests: rendered words, data sets, batches."""

import functools

import matplotlib
import numpy as np

from cluster.data.shards import write_manifest, write_shard
from textscanner.config import Config
from textscanner.data.images import decode, fit
from textscanner.data.schema import WordRecord
from textscanner.render.draw import RenderSettings, render_word
from textscanner.render.fonts import Font


@functools.lru_cache(maxsize=1)
def settings() -> RenderSettings:
    """Clean print in the fonts bundled with matplotlib."""
    folder = f"{matplotlib.get_data_path()}/fonts/ttf"
    faces = ("Sans", "Sans-Bold", "Serif", "SansMono")
    fonts = tuple(Font(f"{folder}/DejaVu{face}.ttf", f"DejaVu {face}", "") for face in faces)
    return RenderSettings(seed=5, fonts=fonts, height_px=32, difficulty="easy", split="all")


def rendered_records(count: int, max_label_length: int = 8) -> list[WordRecord]:
    """Words of up to `max_label_length` characters with quads."""
    records: list[WordRecord] = []
    row = 0
    while len(records) < count:
        record = render_word(settings(), row)
        row += 1
        if len(record.text) <= max_label_length:
            records.append(record)
    return records


def write_dataset(uri: str, records: list[WordRecord], num_shards: int = 2) -> str:
    """A prepared data set of these records."""
    size = -(-len(records) // num_shards)
    infos = [write_shard(uri, f"{i:05d}", records[i * size : (i + 1) * size]) for i in range(num_shards)]
    write_manifest(uri, infos, reject_counts={}, origin={"made_by": "a test"})
    return uri


def batch_of(records: list[WordRecord], config: Config) -> dict[str, np.ndarray]:
    """A replica's batch of these records, without augmentation."""
    model = config.model
    count = len(records)
    batch: dict[str, np.ndarray] = {
        "image": np.zeros((count, model.height_px, model.width_px, 3), np.uint8),
        "quads": np.zeros((count, model.max_label_length, 4, 2), np.float32),
        "ids": np.zeros((count, model.max_label_length), np.int32),
        "length": np.zeros(count, np.int32),
        "has_quads": np.ones(count, np.float32),
        "case_known": np.array([record.case_known for record in records], np.float32),
        "row_id": np.arange(count, dtype=np.int64),
    }
    for i, record in enumerate(records):
        n = len(record.text)
        batch["image"][i], resize = fit(decode(record.image, record.source), model)
        batch["quads"][i, :n] = record.quads * (resize.scale_x, resize.scale_y)
        batch["ids"][i, :n] = config.charset.encode(record.text)
        batch["length"][i] = n
    return batch
