"""Which words are likely, as a second opinion on what the network saw: a noisy channel over a list of words.

Of a word w of n characters, log P(w | image) = log P(image | w) + WEIGHT * log (P(w) / P_other(n)) + constant. The
network gives the first term: the class probabilities and the presence of each position. Word frequencies give P(w).
P_other(n) is what a text that stands in no list may claim: such texts keep what the network read, so that names, codes
and numbers which are clear in the image stay as they are. The lengths tried are the network's and one more or less.

Needs no TensorFlow, and no training. The constants were chosen on the validation words of docs/accuracy.md.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from textscanner.charset import FIRST_CHARACTER_ID, Charset
from textscanner.checkpoint_files import NO_VOCABULARY

WEIGHT = 0.4  # of the words' frequencies against the image: the network is surer of itself than it is right
LOG_UNLISTED = -6.0  # log of the share of texts that stand in no list ...
LOG_UNLISTED_CHARACTER = -3.0  # ... and of each of their characters: one of 20 that are equally likely
MISREAD = 0.01  # the chance that a character is any other, whatever the network says
PRESENCE_FLOOR = 1e-3  # of a strength under a logarithm
MAX_LENGTH = 25  # longer words are not listed


@dataclasses.dataclass(frozen=True, eq=False)
class _Words:
    """Words of one length m, the likeliest first: ids intp [m, W], gains float32 [W] (WEIGHT * log P / P_other)."""

    ids: np.ndarray
    gains: np.ndarray

    def gain_of(self, ids: np.ndarray) -> float | None:
        """The gain of a word; None if it is not listed."""
        found = np.flatnonzero((self.ids == ids[:, None]).all(0))
        return float(self.gains[found[0]]) if len(found) else None


class Correction(NamedTuple):
    """The likeliest text of a word.

    Attributes:
      ids: int32 [m], class ids.
      confidences: float32 [m], the network's probability of each character, 0..1.
      word_confidence: the text's share among the words compared and all texts that are not listed, 0..1.
    """

    ids: np.ndarray
    confidences: np.ndarray
    word_confidence: float


class Vocabulary:
    """Words with their probabilities, in the classes of a charset; upper and lower case count as one."""

    def __init__(self, words: Mapping[str, float], charset: Charset) -> None:
        """Takes words with probabilities or counts; those that the charset cannot write are counted but not listed."""
        self._folded = _folded_classes(charset)
        merged: dict[str, float] = {}
        for word, probability in words.items():
            key = "".join(map(_lower, word)) if not word.islower() else word
            if not key.isalnum():
                key = "".join(c for c in key if c.isalnum() or c in charset.characters)
            merged[key] = merged.get(key, 0.0) + probability
        by_length: collections.defaultdict[int, list[str]] = collections.defaultdict(list)
        for key in merged:
            by_length[len(key)].append(key)
        classes = _class_table(charset, self._folded)
        total = sum(merged.values())
        self._words: dict[int, _Words] = {}
        for length in range(1, MAX_LENGTH + 1):
            keys = by_length[length]
            codes = np.array(keys, f"<U{length}").view(np.uint32).reshape(-1, length)
            ids = classes[np.minimum(codes, len(classes) - 1)]
            kept = (ids > 0).all(1)
            if kept.any():
                shares = np.array([merged[key] for key in keys])[kept] / total
                self._words[length] = _sorted_words(ids[kept], shares)

    def __len__(self) -> int:
        return sum(len(words.gains) for words in self._words.values())

    def correct(self, scores: np.ndarray, presence: np.ndarray, threshold: float) -> Correction:
        """The likeliest text of a decoded word, in which the network found at least one character.

        Args:
          scores: float32 [N, C], how much of each position each class has, background 0.
          presence: float32 [N], how surely each position is there.
          threshold: the strength from which the network counts a position as there.
        """
        length = max(1, int(np.argmin(np.append(presence >= threshold, False))))
        probabilities = scores / np.maximum(scores.sum(-1, keepdims=True), 1e-6)
        image = self._log_characters(probabilities)
        there, ends = _log_presence(presence, threshold)
        second, first = np.sort(image, -1)[:, -2:].T
        ceilings = np.append(0.0, np.cumsum(first + there)) + ends  # [N + 1]: no text of that length has more
        chosen = np.argmax(image[:length], -1)  # what the network read
        best = ceilings[length]
        # All unlisted texts of this length together, then the listed ones that are compared. Those are sorted by what
        # frequency gives them: from one on, none can win. Those of the network's length differ from what it read in
        # one character at least.
        totals = [np.array([best - first[:length].sum()])]
        margins = {length: float(np.min((first - second)[:length]))}
        for m in (length, length - 1, length + 1):
            words = self._words.get(m)
            if words is None or m > len(presence):
                continue
            known = words.gain_of(chosen) if m == length else None
            if known is not None:
                best = ceilings[length] + known
                totals.append(np.array([best]))
            count = int(np.searchsorted(-words.gains, ceilings[m] - margins.get(m, 0.0) - best, "right"))
            if count == 0:
                continue
            fixed = ceilings[m] - first[:m].sum()
            found = words.gains[:count] + fixed
            for k in range(m):
                found = found + image[k].take(words.ids[k, :count])
            totals.append(found)
            at = int(np.argmax(found))
            if found[at] > best:
                best, chosen = found[at], words.ids[:, at]
        share = np.float32(1 / np.exp(np.concatenate(totals) - best).sum())
        return self._choice(chosen, probabilities, float(share))

    def _log_characters(self, probabilities: np.ndarray) -> np.ndarray:
        """log P(position | class) over folded classes, float [N, C]."""
        folded = np.zeros_like(probabilities)
        np.add.at(folded.T, self._folded, probabilities.T)
        return np.log((1 - MISREAD) * folded + MISREAD / max(folded.shape[-1] - FIRST_CHARACTER_ID, 1))

    def _choice(self, chosen: np.ndarray, probabilities: np.ndarray, word_confidence: float) -> Correction:
        """The case of each character is the network's."""
        alike = self._folded[None, :] == chosen[:, None]  # [m, C]
        among = np.where(alike, probabilities[: len(chosen)], -1.0)
        return Correction(np.argmax(among, -1).astype(np.int32), among.max(-1), word_confidence)


def _folded_classes(charset: Charset) -> np.ndarray:
    """intp [C]: for each class the class of its lower case, itself where the charset has none."""
    index = {c: i + FIRST_CHARACTER_ID for i, c in enumerate(charset.characters)}
    special = list(range(FIRST_CHARACTER_ID))
    return np.array([*special, *(index.get(_lower(c), i) for c, i in index.items())], np.intp)


def _lower(character: str) -> str:
    """Lower case where that is one character too."""
    lower = character.lower()
    return lower if len(lower) == 1 else character


def _class_table(charset: Charset, folded: np.ndarray) -> np.ndarray:
    """intp [codes]: the folded class of a character by its code point; 0 where the charset has none."""
    classes = {ord(_lower(c)): folded[i] for i, c in enumerate(charset.characters, FIRST_CHARACTER_ID)}
    table = np.zeros(max(classes) + 2, np.intp)  # the last stands for all behind it
    table[list(classes)] = list(classes.values())
    return table


def _sorted_words(ids: np.ndarray, shares: np.ndarray) -> _Words:
    order = np.argsort(-shares, kind="stable")
    unlisted = LOG_UNLISTED + LOG_UNLISTED_CHARACTER * ids.shape[1]
    gains = WEIGHT * (np.log(shares[order]) - unlisted)
    return _Words(np.ascontiguousarray(ids[order].T), gains.astype(np.float32))


def _log_presence(presence: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """log P(position k is there) [N], and log P(a word of m positions ends there) [N + 1]: even at the threshold."""
    s = np.clip(presence.astype(np.float64), PRESENCE_FLOOR, 1 - PRESENCE_FLOOR)
    bias = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else 0.0
    odds = np.log(s) - np.log1p(-s) - bias
    return -np.log1p(np.exp(-odds)), np.append(-np.log1p(np.exp(odds)), 0.0)


@functools.lru_cache(maxsize=4)
def load_vocabulary(name: str, charset: Charset) -> Vocabulary | None:
    """The vocabulary of that name for a charset; None for `none`.

    Args:
      name: languages that wordfreq knows (`en`, `en+de`), or a UTF-8 file with a word a line, a tab and its count
        behind it if they are not equally likely.

    Raises:
      ValueError: it is neither, or the file cannot be read or holds no word that the charset can write.
    """
    if name == NO_VOCABULARY:
        return None
    path = pathlib.Path(name)
    if path.suffix or path.exists():
        vocabulary = Vocabulary(_from_file(path), charset)
        if not len(vocabulary):
            raise ValueError(f"--vocabulary is {name!r}: it holds no word in the network's characters")
        return vocabulary
    return Vocabulary(_from_languages(name), charset)


def _from_file(path: pathlib.Path) -> dict[str, float]:
    counts: dict[str, float] = {}
    try:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            word, _, count = line.partition("\t")
            if word.strip():
                counts[word.strip()] = _count(count, number)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--vocabulary is {str(path)!r}: {error}; give a UTF-8 text file with a word a line, "
            "and a tab and its count behind it if you like"
        ) from error
    return counts


def _count(given: str, line: int) -> float:
    try:
        count = float(given) if given.strip() else 1.0
    except ValueError:
        count = 0.0
    if not 0 < count < math.inf:
        raise ValueError(f"line {line}: {given!r} is no count above 0")
    return count


def _from_languages(name: str) -> dict[str, float]:
    import wordfreq

    known = wordfreq.available_languages("best")
    shares: collections.defaultdict[str, float] = collections.defaultdict(float)
    for language in name.split("+"):
        if language not in known:
            raise ValueError(
                f"--vocabulary is {name!r}: none, a file with a word a line, or languages out of "
                f"{', '.join(sorted(known))}, several as en+de"
            )
        for centibels, words in enumerate(wordfreq.get_frequency_list(language)):
            for word in words:
                if word.replace("'", "").isalpha():  # numbers are listed by their shape only
                    shares[word] += 10 ** (-centibels / 100)
    return shares
