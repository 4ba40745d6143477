"""Text <-> class ids. The only module that numbers the classes.

Class 0 is the background of the class map and also pads rows of ids. Class 1 is "unknown": a character that occurs in a
label but not in the charset. The characters of the charset follow from class 2 on. A charset is either case-insensitive
(labels are lower-cased first) or case-sensitive. Punctuation and symbols outside the charset are either unknown
characters or, with `skip_punctuation`, ignored: most real labels omit punctuation.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
import string
import unicodedata

import numpy as np

from textscanner.errors import UserError

BACKGROUND_ID = 0
UNKNOWN_ID = 1
FIRST_CHARACTER_ID = 2
UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"


@dataclasses.dataclass(frozen=True)
class Charset:
    """An ordered set of characters. `characters[i]` has class id `i + FIRST_CHARACTER_ID`.

    Attributes:
      characters: each character that can be read, once.
      case_sensitive: if false, labels are lower-cased before they are encoded.
      skip_punctuation: punctuation and symbols (Unicode categories P and S) outside `characters` are dropped from
        labels. If false, they are unknown characters with a position of their own.

    Raises:
      UserError: `characters` is empty, repeats a character, contains white space, or contains upper case although the
        charset is case-insensitive.
    """

    characters: str
    case_sensitive: bool = False
    skip_punctuation: bool = False

    def __post_init__(self) -> None:
        if not self.characters:
            raise UserError("charset.characters is empty: give at least one character")
        repeated = sorted(c for c, count in collections.Counter(self.characters).items() if count > 1)
        if repeated:
            raise UserError(f"charset.characters repeats {repeated}: list each character once")
        blanks = sorted({c for c in self.characters if c.isspace() or c == UNKNOWN_CHARACTER})
        if blanks:
            raise UserError(f"charset.characters contains {blanks}: white space and U+FFFD cannot be read; remove them")
        if not self.case_sensitive and self.characters != self.characters.lower():
            raise UserError(
                "charset.characters contains upper case but charset.case_sensitive is false: "
                "lower-case the characters or set charset.case_sensitive=true"
            )

    @property
    def num_classes(self) -> int:
        """Background, unknown and the characters."""
        return len(self.characters) + FIRST_CHARACTER_ID

    def normalize(self, text: str) -> str:
        """Applies Unicode NFC, and lower case if the charset is case-insensitive. Never removes characters."""
        text = unicodedata.normalize("NFC", text)
        return text if self.case_sensitive else text.lower()

    def encode(self, text: str) -> np.ndarray:
        """The class ids of a label.

        Returns:
          int32 [n], one id per character of `normalize(text)` that `has_position`; UNKNOWN_ID for characters outside
          the charset.
        """
        class_ids = self._class_ids
        ids = (class_ids.get(c, UNKNOWN_ID) for c in self.normalize(text) if c in class_ids or not self._skips(c))
        return np.fromiter(ids, np.int32)

    def has_position(self, text: str) -> np.ndarray:
        """Which characters of `normalize(text)` are encoded, bool [len(normalize(text))]; the others are skipped."""
        class_ids = self._class_ids
        return np.array([c in class_ids or not self._skips(c) for c in self.normalize(text)], bool)

    @property
    def other_case_ids(self) -> np.ndarray:
        """For each class id, the id of the same letter in the other case: int32 [num_classes].

        A class without a counterpart in the charset maps to itself; in a case-insensitive charset all do. Losses need
        it for labels whose case is not known: either id is correct.
        """
        return _other_case_ids(self.characters).copy()

    def decode(self, ids: np.ndarray) -> str:
        """The text of a row of ids [N], up to the first background id; UNKNOWN_ID becomes U+FFFD."""
        text = []
        for i in np.asarray(ids).tolist():
            if i == BACKGROUND_ID:
                break
            text.append(UNKNOWN_CHARACTER if i == UNKNOWN_ID else self.characters[i - FIRST_CHARACTER_ID])
        return "".join(text)

    def unknown_characters(self, text: str) -> list[str]:
        """The characters of `text` that encode as UNKNOWN_ID, sorted, without repetition."""
        class_ids = self._class_ids
        return sorted({c for c in self.normalize(text) if c not in class_ids and not self._skips(c)})

    def _skips(self, character: str) -> bool:
        return self.skip_punctuation and unicodedata.category(character)[0] in "PS"

    @property
    def _class_ids(self) -> dict[str, int]:
        return _class_ids(self.characters)


@functools.lru_cache(maxsize=16)
def _class_ids(characters: str) -> dict[str, int]:
    """Class id by character. Cached here and not on the charset, so that charsets stay plain data when pickled."""
    return {c: i + FIRST_CHARACTER_ID for i, c in enumerate(characters)}


@functools.lru_cache(maxsize=16)
def _other_case_ids(characters: str) -> np.ndarray:
    class_ids = _class_ids(characters)
    # Dotless i and similar letters have no counterpart that maps back to them: they stay alone.
    counterparts = (c.swapcase() if c.swapcase().swapcase() == c else c for c in characters)
    ids = [class_ids.get(other, class_ids[c]) for c, other in zip(characters, counterparts, strict=True)]
    return np.array([*range(FIRST_CHARACTER_ID), *ids], np.int32)


ALPHANUMERIC = Charset(string.digits + string.ascii_lowercase, skip_punctuation=True)
"""The benchmarks' 36 characters: digits and letters, case-insensitive, without punctuation."""
PRINTABLE_ASCII = Charset(string.digits + string.ascii_letters + string.punctuation, case_sensitive=True)
"""The 94 printable ASCII characters, case-sensitive; symbols outside ASCII are unknown characters."""


def load_charset(path: str | pathlib.Path, case_sensitive: bool = True) -> Charset:
    """Reads a charset from a UTF-8 text file: every character in the file, in order, without line ends.

    Raises:
      UserError: the file is missing, is not UTF-8, or its characters are not a valid charset.
    """
    try:
        text = pathlib.Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"charset file {path}: {error}; give a UTF-8 text file with the characters to read") from error
    return Charset("".join(text.splitlines()), case_sensitive)
