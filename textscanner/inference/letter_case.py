"""Upper or lower case for the letters of a corrected word: the vocabulary knows words without case.

A letter that the network reads keeps the network's case. For a letter that the vocabulary puts in its place the network
may say little, so three votes decide: the two cases of the letter itself, the size of whatever the network sees at that
position, and the pattern of the other letters (`hotel`, `Hotel`, `HOTEL`).

Shapes: m characters of a word, C classes.
"""

from __future__ import annotations

import numpy as np

from textscanner.charset import FIRST_CHARACTER_ID, Charset

SHARE_FLOOR = 0.01  # added to a probability before the logarithm: smaller ones are noise
PATTERN_LOG_ODDS = 2.0  # of the other letters, if all have the same case
MAX_POSITION_LOG_ODDS = 1.0  # of all upper-case against all lower-case letters: l, I and 1 are often confused


class LetterCase:
    """The letters of a charset in both cases."""

    def __init__(self, charset: Charset) -> None:
        """Finds the letters.

        Args:
          charset: the network's characters.
        """
        self.folded = folded_classes(charset)
        characters = "\0" * FIRST_CHARACTER_ID + charset.characters
        is_letter = np.array([c.isalpha() for c in characters])
        is_upper = self.folded != np.arange(len(characters))
        has_upper = np.isin(np.arange(len(characters)), self.folded[is_upper])
        # 1 upper case, -1 lower case, 0 for everything that has no two cases in the charset.
        self._case = np.where(is_upper, 1, np.where(is_letter & has_upper, -1, 0))

    def restore(self, folded_ids: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class ids in upper or lower case.

        Args:
          folded_ids: intp [m], folded classes of the word.
          probabilities: float32 [at least m, C], the network's.

        Returns:
          class ids int32 [m], and the network's probability of each, float32 [m].
        """
        probabilities = probabilities[: len(folded_ids)]
        is_same = self.folded[None, :] == folded_ids[:, None]  # [m, C]
        ids = np.argmax(np.where(is_same, probabilities, -1.0), -1)
        is_corrected = self.folded[np.argmax(probabilities, -1)] != folded_ids
        case = np.where(is_corrected, 0, self._case[ids])  # of the letters that the network reads
        letters = np.flatnonzero(self._case[ids])
        for k in letters[is_corrected[letters]]:
            pattern = _pattern(case, int(k), int(letters[0]))
            wanted = 1 if self._log_odds(is_same[k], probabilities[k]) + PATTERN_LOG_ODDS * pattern > 0 else -1
            ids[k] = np.argmax(np.where(is_same[k] & (self._case == wanted), probabilities[k], -1.0))
        return ids.astype(np.int32), np.take_along_axis(probabilities, ids[:, None], -1)[:, 0]

    def _log_odds(self, is_same: np.ndarray, probabilities: np.ndarray) -> float:
        """Log odds of upper case by what the network sees at one position.

        Args:
          is_same: bool [C], classes of the letter.
          probabilities: float32 [C].
        """
        own = _log_ratio(probabilities[is_same & (self._case > 0)], probabilities[is_same & (self._case < 0)])
        position = _log_ratio(probabilities[self._case > 0], probabilities[self._case < 0])
        return own + float(np.clip(position, -MAX_POSITION_LOG_ODDS, MAX_POSITION_LOG_ODDS))


def _log_ratio(upper: np.ndarray, lower: np.ndarray) -> float:
    return float(np.log((upper.sum() + SHARE_FLOOR) / (lower.sum() + SHARE_FLOOR)))


def _pattern(case: np.ndarray, k: int, first: int) -> float:
    """What the other letters say about position k: -1 lower case .. 1 upper case, 0 nothing.

    Args:
      case: int [m], 1 upper, -1 lower, 0 neither or not known.
      first: position of the word's first letter, which may be upper case before lower-case ones.
    """
    others = np.delete(case, [k, first] if case[first] > 0 else [k])
    known = others[others != 0]
    mean = float(known.mean()) if len(known) else 0.0
    return max(mean, 0.0) if k == first else mean


def folded_classes(charset: Charset) -> np.ndarray:
    """intp [C]: for each class the class of its lower-case character, or itself if the charset has none."""
    index = {c: i + FIRST_CHARACTER_ID for i, c in enumerate(charset.characters)}
    special = list(range(FIRST_CHARACTER_ID))
    return np.array([*special, *(index.get(lower(c), i) for c, i in index.items())], np.intp)


def lower(character: str) -> str:
    """Lower case, if that is a single character too."""
    lowered = character.lower()
    return lowered if len(lowered) == 1 else character
