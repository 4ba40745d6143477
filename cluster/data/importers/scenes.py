"""Formats of whole scenes, from which words are cropped: SynthText (with character quads) and Street View Text."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np

from cluster.data.importers.source import DAMAGED, batched, file_version, open_files
from textscanner.data.annotations import Reject, Word, crop_word, encode_jpeg, quads_of_boxes, transform
from textscanner.data.images import decode
from textscanner.errors import UserError

WORDS_PER_SCENE = 8  # approximately, in SynthText: converts rows per part to scenes per part
SYNTHTEXT_VARIABLES = ("imnames", "txt", "wordBB", "charBB")


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """An image and its words.

    Attributes:
      outlines: a quad per word, [words, 4, 2] in pixels of the scene.
      quads: character quads of each word, [characters, 4, 2]; None where unknown.
    """

    file: str
    texts: tuple[str, ...]
    outlines: np.ndarray
    quads: tuple[np.ndarray, ...] | None


@dataclasses.dataclass(frozen=True)
class Scenes(abc.ABC):
    """Scenes and their annotation file, which is held in memory: by far the smaller part of either data set."""

    uri: str
    label_file: str

    margin: ClassVar[float] = 0.0
    """Space around a crop, as a fraction of the word's height."""
    case_known: ClassVar[bool | None] = None
    """As in `Word`."""

    @abc.abstractmethod
    def scenes(self) -> Iterator[Scene | Reject]:
        """Yields the annotated scenes."""

    def count(self) -> int:
        """Number of annotated words."""
        return sum(len(scene.texts) if isinstance(scene, Scene) else 1 for scene in self.scenes())

    def version(self) -> str:
        return file_version(self.uri, self.label_file)

    def parts(self, rows: int) -> Iterator[tuple[Scene | Reject, ...]]:
        return batched(self.scenes(), max(1, rows // WORDS_PER_SCENE))

    def read(self, part: tuple[Scene | Reject, ...]) -> Iterator[Word | Reject]:
        """Crops the words, with one scene in memory at a time."""
        for scene in part:
            if isinstance(scene, Reject):
                yield scene
            else:
                yield from self._crops(scene)

    def _crops(self, scene: Scene) -> Iterator[Word | Reject]:
        names = [f"{scene.file}#{i}" for i in range(len(scene.texts))]
        try:
            image = decode(open_files(self.uri).read(scene.file), scene.file)
        except KeyError:
            yield from (Reject(name, "missing_image", "the file does not exist") for name in names)
            return
        except ValueError as error:
            yield from (Reject(name, "broken_image", str(error)) for name in names)
            return
        for i, name in enumerate(names):
            try:
                crop, affine = crop_word(image, scene.outlines[i], self.margin)
            except ValueError as error:
                yield Reject(name, "box_outside", str(error))
                continue
            quads = None if scene.quads is None else transform(scene.quads[i], affine)
            yield Word(encode_jpeg(crop), scene.texts[i], quads, name, self.case_known)


@dataclasses.dataclass(frozen=True)
class SynthText(Scenes):
    """SynthText (Gupta et al., 2016): MATLAB cell arrays with a cell per scene.

    `imnames`; `txt`, whose words are separated by white space; `wordBB` [2, 4, words]; `charBB` [2, 4, characters].
    """

    margin: ClassVar[float] = 0.1

    def scenes(self) -> Iterator[Scene | Reject]:
        cells = self._cells()
        for image_name, texts, outlines, characters in zip(*(cells[v] for v in SYNTHTEXT_VARIABLES), strict=True):
            file = str(np.asarray(image_name).ravel()[0])
            words = tuple(word for line in np.asarray(texts).ravel() for word in str(line).split())
            word_quads, char_quads = _quads_of_matlab(outlines), _quads_of_matlab(characters)
            if len(word_quads) != len(words) or len(char_quads) != sum(map(len, words)):
                counts = f"{len(words)} words, {len(word_quads)} word boxes, {len(char_quads)} character boxes"
                yield Reject(file, "box_count", counts)
                continue
            ends = np.cumsum([len(word) for word in words])[:-1]
            yield Scene(file, words, word_quads, tuple(np.split(char_quads, ends)))

    def _cells(self) -> dict[str, np.ndarray]:
        from scipy.io import loadmat

        uri = f"{self.uri}/{self.label_file}"
        try:
            with open_files(self.uri).open(self.label_file) as raw:
                variables = loadmat(raw, variable_names=SYNTHTEXT_VARIABLES)
            return {name: variables[name].ravel() for name in SYNTHTEXT_VARIABLES}
        except KeyError as error:
            expected = ", ".join(SYNTHTEXT_VARIABLES)
            raise UserError(f"{uri} does not exist or has no {error}: expected {expected}") from None
        except Exception as error:  # scipy lets any exception of its parser through
            raise UserError(f"{uri} is not a valid MATLAB file: {error}") from None


def _quads_of_matlab(table: np.ndarray) -> np.ndarray:
    """[2, 4, n], or [2, 4] for n = 1 (MATLAB drops the last axis) -> float32 [n, 4, 2]."""
    table = np.asarray(table, np.float32)
    return (table[..., None] if table.ndim == 2 else table).transpose(2, 1, 0)


@dataclasses.dataclass(frozen=True)
class StreetViewText(Scenes):
    """Street View Text (Wang & Belongie, 2010): word rectangles in XML, no character boxes.

    Labels are in upper case, whatever the image shows.
    """

    case_known: ClassVar[bool | None] = False

    def scenes(self) -> Iterator[Scene | Reject]:
        for image in self._images():
            file = image.findtext("imageName", "").strip()
            rectangles = image.findall("taggedRectangles/taggedRectangle")
            try:
                boxes = [[float(r.attrib[key]) for key in ("x", "y", "width", "height")] for r in rectangles]
            except (KeyError, ValueError) as error:
                yield Reject(file, "bad_row", f"a taggedRectangle without four numbers: {error}")
                continue
            yield Scene(file, tuple(r.findtext("tag", "") for r in rectangles), quads_of_boxes(boxes), None)

    def _images(self) -> list[ElementTree.Element]:
        uri = f"{self.uri}/{self.label_file}"
        try:
            with open_files(self.uri).open(self.label_file) as raw:
                return ElementTree.parse(raw).getroot().findall("image")
        except KeyError:
            raise UserError(f"{uri} does not exist") from None
        except (ElementTree.ParseError, LookupError, ValueError, *DAMAGED) as error:  # LookupError: its encoding
            raise UserError(f"{uri} is not valid XML: {error}") from None
