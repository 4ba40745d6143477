"""Words cut out of whole scenes: SynthText (`gt.mat`, with character quads) and SVT (`train.xml`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np

from cluster.data.importers.source import batched, file_version, open_files
from textscanner.data.annotations import Reject, Word, crop_word, encode_jpeg, quads_of_boxes, transform
from textscanner.data.images import decode

SYNTHTEXT_MARGIN = 0.1
WORDS_PER_SCENE = 8  # about, in SynthText: how many scenes make a part


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """An image and its words.

    Attributes:
      outlines: a quad per word, [words, 4, 2].
      quads: of each word's characters, [characters, 4, 2], or None.
    """

    file: str
    texts: tuple[str, ...]
    outlines: np.ndarray
    quads: tuple[np.ndarray, ...] | None


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Scenes and their annotation file, which is read whole: by far the smaller part of either data set.

    Attributes:
      format: `synthtext` or `svt`.
    """

    uri: str
    format: str
    labels: str

    def rows(self) -> Iterator[Scene | Reject]:
        """The annotated scenes."""
        return (_synthtext if self.format == "synthtext" else _svt)(self.uri, self.labels)

    def count(self) -> int:
        """Annotated words."""
        return sum(len(row.texts) if isinstance(row, Scene) else 1 for row in self.rows())

    def version(self) -> str:
        """The annotation file's."""
        return file_version(self.uri, self.labels)

    def parts(self, rows: int) -> Iterator[tuple[Scene | Reject, ...]]:
        """Scenes by the `rows` / WORDS_PER_SCENE."""
        return batched(self.rows(), max(1, rows // WORDS_PER_SCENE))

    def read(self, part: tuple[Scene | Reject, ...]) -> Iterator[Word | Reject]:
        """Cuts the words out, a scene in memory at a time."""
        margin = SYNTHTEXT_MARGIN if self.format == "synthtext" else 0.0
        for scene in part:
            if isinstance(scene, Reject):
                yield scene
            else:
                yield from _words(self.uri, scene, margin)


def _words(uri: str, scene: Scene, margin: float) -> Iterator[Word | Reject]:
    names = [f"{scene.file}#{i}" for i in range(len(scene.texts))]
    try:
        image = decode(open_files(uri).read(scene.file), scene.file)
    except KeyError:
        yield from (Reject(name, "missing_image", "there is no such file") for name in names)
        return
    except ValueError as error:
        yield from (Reject(name, "broken_image", str(error)) for name in names)
        return
    for i, name in enumerate(names):
        try:
            crop, affine = crop_word(image, scene.outlines[i], margin)
        except ValueError as error:
            yield Reject(name, "box_outside", str(error))
            continue
        quads = None if scene.quads is None else transform(scene.quads[i], affine)
        yield Word(encode_jpeg(crop), scene.texts[i], quads, name)


def _synthtext(uri: str, name: str) -> Iterator[Scene | Reject]:
    """Gupta et al. (2016): a cell per scene of `imnames`, `txt` (split at white space), `wordBB`, `charBB` [2, 4, n]"""
    cells = _mat_cells(uri, name)
    for file, texts, outlines, characters in zip(*(cells[v] for v in SYNTHTEXT_CELLS), strict=True):
        told = str(np.asarray(file).ravel()[0])
        words = tuple(word for line in np.asarray(texts).ravel() for word in str(line).split())
        word_quads, char_quads = _quads(outlines), _quads(characters)
        if len(word_quads) != len(words) or len(char_quads) != sum(map(len, words)):
            found = f"{len(words)} words, {len(word_quads)} word boxes, {len(char_quads)} character boxes"
            yield Reject(told, "box_count", found)
            continue
        ends = np.cumsum([len(word) for word in words])[:-1]
        yield Scene(told, words, word_quads, tuple(np.split(char_quads, ends)))


SYNTHTEXT_CELLS = ("imnames", "txt", "wordBB", "charBB")


def _mat_cells(uri: str, name: str) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    try:
        with open_files(uri).open(name) as raw:
            found = loadmat(raw, variable_names=SYNTHTEXT_CELLS)
        return {variable: found[variable].ravel() for variable in SYNTHTEXT_CELLS}
    except KeyError as error:
        raise ValueError(f"{uri}/{name} is missing or has no {error}: wanted {', '.join(SYNTHTEXT_CELLS)}") from None
    except Exception as error:  # scipy raises what its reader happens to meet
        raise ValueError(f"{uri}/{name} is not a MATLAB file that can be read: {error}") from None


def _quads(table: np.ndarray) -> np.ndarray:
    """[2, 4, n] or, for n = 1, [2, 4] -> float32 [n, 4, 2]."""
    table = np.asarray(table, np.float32)
    return (table[..., None] if table.ndim == 2 else table).transpose(2, 1, 0)


def _svt(uri: str, name: str) -> Iterator[Scene | Reject]:
    """Street View Text (Wang & Belongie, 2010): tagged rectangles, no character boxes."""
    try:
        with open_files(uri).open(name) as raw:
            images = ElementTree.parse(raw).getroot().findall("image")
    except KeyError:
        raise ValueError(f"{uri}/{name} does not exist") from None
    except ElementTree.ParseError as error:
        raise ValueError(f"{uri}/{name} is not XML: {error}") from None
    for image in images:
        file = image.findtext("imageName", "").strip()
        rectangles = image.findall("taggedRectangles/taggedRectangle")
        try:
            boxes = [[float(r.attrib[key]) for key in ("x", "y", "width", "height")] for r in rectangles]
        except (KeyError, ValueError) as error:
            yield Reject(file, "bad_row", f"a taggedRectangle without four numbers: {error}")
            continue
        yield Scene(file, tuple(r.findtext("tag", "") for r in rectangles), quads_of_boxes(boxes), None)
