"""Readings held to a list of words: the closest by edit distance, as the benchmarks with lexicons do."""

from __future__ import annotations

import dataclasses
import pathlib

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from textscanner.inference.postprocess import Reading
from textscanner.text import normalize_for_scoring


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """Words in order; `keys` are their lower-case letters and digits, by which they are compared."""

    words: tuple[str, ...]
    keys: tuple[str, ...]

    def nearest(self, reading: Reading) -> Reading:
        """The reading with the closest word as its text (the first of equals); an empty reading stays empty."""
        key = normalize_for_scoring(reading.text)
        if not key:
            return reading
        _, _, at = process.extractOne(key, self.keys, scorer=Levenshtein.distance)
        return dataclasses.replace(reading, text=self.words[at])


def load_lexicon(path: str | pathlib.Path) -> Lexicon:
    """The lexicon of a UTF-8 text file with a word a line.

    Raises:
      ValueError: the file is missing, not UTF-8, or holds no word with a letter or digit.
    """
    try:
        lines = pathlib.Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--lexicon is {str(path)!r}: {error}; give a UTF-8 text file with a word a line") from error
    words = tuple(dict.fromkeys(line.strip() for line in lines if normalize_for_scoring(line)))
    if not words:
        raise ValueError(f"--lexicon is {str(path)!r}: it holds no word with a letter or digit")
    return Lexicon(words, tuple(normalize_for_scoring(word) for word in words))
