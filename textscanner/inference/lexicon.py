"""Lexicon-constrained reading: the closest word of a list by edit distance, as in benchmarks with lexicons."""

from __future__ import annotations

import dataclasses
import pathlib

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from textscanner.errors import UserError
from textscanner.inference.postprocess import Reading
from textscanner.text import normalize_for_scoring


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """A list of words.

    Attributes:
      words: the words, in the order of the file.
      keys: their lower-case letters and digits, by which they are compared; as many as `words`.
    """

    words: tuple[str, ...]
    keys: tuple[str, ...]

    def nearest(self, reading: Reading) -> Reading:
        """Replaces the text with the closest word, the first among equals. An empty reading stays empty."""
        key = normalize_for_scoring(reading.text)
        if not key:
            return reading
        _, _, index = process.extractOne(key, self.keys, scorer=Levenshtein.distance)
        return dataclasses.replace(reading, text=self.words[index])


def load_lexicon(path: str | pathlib.Path) -> Lexicon:
    """Reads a UTF-8 text file with one word per line.

    Raises:
      UserError: the file is missing, is not UTF-8, or has no word with a letter or digit.
    """
    try:
        lines = pathlib.Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"lexicon is {str(path)!r}: {error}; give a UTF-8 text file with one word per line") from error
    words = tuple(dict.fromkeys(line.strip() for line in lines if normalize_for_scoring(line)))
    if not words:
        raise UserError(f"lexicon is {str(path)!r}: the file has no word with a letter or digit")
    return Lexicon(words, tuple(normalize_for_scoring(word) for word in words))
