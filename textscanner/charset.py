"""Text <-> class ids: the only owner of class numbering.

Class 0 is the background of the class map and doubles as padding in id rows; class 1 stands for a character
that is in a label but not in the alphabet ("unknown"); the alphabet starts at 2. A charset is either
case-insensitive (labels are lower-cased first) or case-sensitive. Punctuation and symbols outside the alphabet
can be passed over, as most real labels do, instead of being read as unknown.
"""

from __future__ import annotations

import dataclasses
import pathlib
import string
import unicodedata

import numpy as np

BACKGROUND_ID = 0
UNKNOWN_ID = 1
FIRST_CHARACTER_ID = 2
UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"


@dataclasses.dataclass(frozen=True)
class Charset:
    """An ordered alphabet. `characters[i]` has class id `i + FIRST_CHARACTER_ID`.

    Attributes:
      skip_punctuation: punctuation and symbols outside the alphabet (Unicode categories P and S) are no characters
        and have no position in a word. Otherwise they are unknown characters.

    Raises:
      ValueError: the alphabet is empty, repeats a character, holds white space, or holds upper case although
        it is case-insensitive.
    """

    characters: str
    case_sensitive: bool = False
    skip_punctuation: bool = False

    def __post_init__(self) -> None:
        if not self.characters:
            raise ValueError("charset.characters is empty: give at least one character")
        repeated = sorted({c for c in self.characters if self.characters.count(c) > 1})
        if repeated:
            raise ValueError(f"charset.characters repeats {repeated}: each character may stand in it once")
        blanks = sorted({c for c in self.characters if c.isspace() or c == UNKNOWN_CHARACTER})
        if blanks:
            raise ValueError(f"charset.characters holds {blanks}: white space and U+FFFD cannot be read, remove them")
        if not self.case_sensitive and self.characters != self.characters.lower():
            raise ValueError(
                "charset.characters holds upper case but charset.case_sensitive is false: "
                "lower-case the alphabet or set case_sensitive=true"
            )

    @property
    def num_classes(self) -> int:
        """Background, unknown and the alphabet."""
        return len(self.characters) + FIRST_CHARACTER_ID

    def normalize(self, text: str) -> str:
        """NFC, and lower case where the charset is case-insensitive. Never removes characters."""
        text = unicodedata.normalize("NFC", text)
        return text if self.case_sensitive else text.lower()

    def encode(self, text: str) -> np.ndarray:
        """Class ids, int32, of the characters that are `kept`; those outside the alphabet become UNKNOWN_ID."""
        index = self._index
        ids = np.array([index.get(c, UNKNOWN_ID) for c in self.normalize(text)], np.int32)
        return ids[self.kept(text)]

    def kept(self, text: str) -> np.ndarray:
        """Which characters of `normalize(text)` have a position in the word, bool."""
        index = self._index
        return np.array([c in index or not self._skips(c) for c in self.normalize(text)], bool)

    def decode(self, ids: np.ndarray) -> str:
        """The text of a row of ids, up to the first background id; unknown becomes U+FFFD."""
        text = []
        for i in np.asarray(ids).tolist():
            if i == BACKGROUND_ID:
                break
            text.append(UNKNOWN_CHARACTER if i == UNKNOWN_ID else self.characters[i - FIRST_CHARACTER_ID])
        return "".join(text)

    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that are outside the alphabet, sorted, each once."""
        index = self._index
        return sorted({c for c in self.normalize(text) if c not in index and not self._skips(c)})

    def _skips(self, character: str) -> bool:
        return self.skip_punctuation and unicodedata.category(character)[0] in "PS"

    @property
    def _index(self) -> dict[str, int]:
        return {c: i + FIRST_CHARACTER_ID for i, c in enumerate(self.characters)}


ALPHANUMERIC = Charset(string.digits + string.ascii_lowercase, skip_punctuation=True)


def load_charset(path: str | pathlib.Path, case_sensitive: bool = True) -> Charset:
    """The charset of a UTF-8 text file: every character in it, in order; line ends are skipped.

    Raises:
      ValueError: the file is missing, is not UTF-8, or its alphabet is not valid.
    """
    try:
        text = pathlib.Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"charset file {path}: {error}; give a UTF-8 text file with the characters to read") from error
    return Charset("".join(text.splitlines()), case_sensitive)
