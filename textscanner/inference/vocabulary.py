"""Word prior: corrects ambiguous readings with word frequencies (a noisy-channel model).

For a word w of n characters, log P(w | image) = log P(image | w) + WEIGHT * log (P(w) / P_other(n)) + constant. The
network gives the first term: class probabilities and presence of each position. Word frequencies give P(w). P_other(n)
is the prior of any text that is not listed: such texts keep the network's reading, so that names, codes and numbers
that are clear in the image stay unchanged. Lengths tried are the network's own and one more or less.

Needs no TensorFlow and no training. The constants were chosen on the validation words of docs/accuracy.md.

Shapes: N positions, C classes, m characters of a word, W words of one length.
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
from textscanner.errors import UserError

WEIGHT = 0.4  # of word frequencies against the image: the network is overconfident
LOG_UNLISTED = -6.0  # log of the share of texts that are in no list ...
LOG_UNLISTED_CHARACTER = -3.0  # ... and of each of their characters: one out of 20 equally likely ones
MISREAD = 0.01  # probability that a character is any other one, whatever the network says
PRESENCE_FLOOR = 1e-3  # lower bound of a presence before the logarithm
MAX_LENGTH = 25  # longer words are not listed
FILE_FORMAT = "a UTF-8 text file with one word per line, optionally followed by a tab and its count"


@dataclasses.dataclass(frozen=True, eq=False)
class _WordTable:
    """Words of one length m, most frequent first.

    Attributes:
      ids: intp [m, W], folded class ids.
      gains: float32 [W], WEIGHT * log (P(w) / P_other(m)), descending.
    """

    ids: np.ndarray
    gains: np.ndarray

    def gain_of(self, word_ids: np.ndarray) -> float | None:
        """The gain of a word, ids intp [m]; None if it is not listed."""
        columns = np.flatnonzero((self.ids == word_ids[:, None]).all(0))
        return float(self.gains[columns[0]]) if len(columns) else None


class Correction(NamedTuple):
    """The most likely text of a word.

    Attributes:
      ids: int32 [m], class ids.
      confidences: float32 [m], the network's probability of each character, 0..1.
      word_confidence: posterior probability of the text among the words compared and all unlisted texts, 0..1.
    """

    ids: np.ndarray
    confidences: np.ndarray
    word_confidence: float


class Vocabulary:
    """Words with their probabilities, as class ids of a charset. Upper and lower case count as the same word."""

    def __init__(self, words: Mapping[str, float], charset: Charset) -> None:
        """Builds the tables.

        Args:
          words: words with probabilities or counts. Words that the charset cannot write are counted but not listed.
          charset: the network's characters.
        """
        self._folded = _folded_classes(charset)
        frequencies: dict[str, float] = {}
        for word, frequency in words.items():
            key = "".join(map(_lower, word)) if not word.islower() else word
            if not key.isalnum():
                key = "".join(c for c in key if c.isalnum() or c in charset.characters)
            frequencies[key] = frequencies.get(key, 0.0) + frequency
        by_length: collections.defaultdict[int, list[str]] = collections.defaultdict(list)
        for key in frequencies:
            by_length[len(key)].append(key)
        class_of_code = _class_table(charset, self._folded)
        total = sum(frequencies.values())
        self._tables: dict[int, _WordTable] = {}
        for length in range(1, MAX_LENGTH + 1):
            keys = by_length[length]
            # All words of a length as one array of code points: half a million words are looked up at once.
            codes = np.array(keys, f"<U{length}").view(np.uint32).reshape(-1, length)
            ids = class_of_code[np.minimum(codes, len(class_of_code) - 1)]
            writable = (ids > 0).all(1)
            if writable.any():
                probabilities = np.array([frequencies[key] for key in keys])[writable] / total
                self._tables[length] = _word_table(ids[writable], probabilities)

    def __len__(self) -> int:
        return sum(len(table.gains) for table in self._tables.values())

    def correct(self, scores: np.ndarray, presence: np.ndarray, threshold: float) -> Correction:
        """The most likely text of a decoded word in which the network detected at least one character.

        Args:
          scores: float32 [N, C], share of each class at each position; background is 0.
          presence: float32 [N] in 0..1, how certain it is that each position exists.
          threshold: presence from which the network counts a position, 0..1.
        """
        length = max(1, int(np.argmin(np.append(presence >= threshold, False))))
        probabilities = scores / np.maximum(scores.sum(-1, keepdims=True), 1e-6)
        log_characters = self._log_characters(probabilities)
        log_present, log_end = _log_presence(presence, threshold)
        second, first = np.sort(log_characters, -1)[:, -2:].T
        # [N + 1]: upper bound of log P(image | w) over all texts of each length.
        ceilings = np.append(0.0, np.cumsum(first + log_present)) + log_end
        best_ids = np.argmax(log_characters[:length], -1)  # the network's reading
        best = ceilings[length]
        # Candidates: all unlisted texts of this length taken together, then listed words. Those are sorted by gain, so
        # from some word on none can win. Listed words of the network's length differ from its reading in at least
        # one character, which costs at least the smallest margin.
        candidates = [np.array([best - first[:length].sum()])]
        margins = {length: float(np.min((first - second)[:length]))}
        for m in (length, length - 1, length + 1):
            table = self._tables.get(m)
            if table is None or m > len(presence):
                continue
            gain = table.gain_of(best_ids) if m == length else None
            if gain is not None:
                best = ceilings[length] + gain
                candidates.append(np.array([best]))
            count = int(np.searchsorted(-table.gains, ceilings[m] - margins.get(m, 0.0) - best, "right"))
            if count == 0:
                continue
            log_posteriors = table.gains[:count] + (ceilings[m] - first[:m].sum())
            for k in range(m):
                log_posteriors = log_posteriors + log_characters[k].take(table.ids[k, :count])
            candidates.append(log_posteriors)
            winner = int(np.argmax(log_posteriors))
            if log_posteriors[winner] > best:
                best, best_ids = log_posteriors[winner], table.ids[:, winner]
        posterior = np.float32(1 / np.exp(np.concatenate(candidates) - best).sum())
        return self._restore_case(best_ids, probabilities, float(posterior))

    def _log_characters(self, probabilities: np.ndarray) -> np.ndarray:
        """log P(position | class) float [N, C] over folded classes, from class probabilities float32 [N, C]."""
        folded = np.zeros_like(probabilities)
        np.add.at(folded.T, self._folded, probabilities.T)
        uniform = MISREAD / max(folded.shape[-1] - FIRST_CHARACTER_ID, 1)
        return np.asarray(np.log((1 - MISREAD) * folded + uniform))

    def _restore_case(self, folded_ids: np.ndarray, probabilities: np.ndarray, word_confidence: float) -> Correction:
        """Gives each folded class id [m] the case that the network finds more likely, probabilities [N, C]."""
        same_letter = self._folded[None, :] == folded_ids[:, None]  # [m, C]
        candidates = np.where(same_letter, probabilities[: len(folded_ids)], -1.0)
        return Correction(np.argmax(candidates, -1).astype(np.int32), candidates.max(-1), word_confidence)


def _folded_classes(charset: Charset) -> np.ndarray:
    """intp [C]: for each class the class of its lower-case character, or itself if the charset has none."""
    index = {c: i + FIRST_CHARACTER_ID for i, c in enumerate(charset.characters)}
    special = list(range(FIRST_CHARACTER_ID))
    return np.array([*special, *(index.get(_lower(c), i) for c, i in index.items())], np.intp)


def _lower(character: str) -> str:
    """Lower case, if that is a single character too."""
    lower = character.lower()
    return lower if len(lower) == 1 else character


def _class_table(charset: Charset, folded: np.ndarray) -> np.ndarray:
    """intp [codes]: folded class of a character by its code point; 0 if the charset does not contain it."""
    classes = {ord(_lower(c)): folded[i] for i, c in enumerate(charset.characters, FIRST_CHARACTER_ID)}
    table = np.zeros(max(classes) + 2, np.intp)  # the last entry stands for all larger code points
    table[list(classes)] = list(classes.values())
    return table


def _word_table(ids: np.ndarray, probabilities: np.ndarray) -> _WordTable:
    """The table of words of one length: ids intp [W, m], probabilities float [W]."""
    order = np.argsort(-probabilities, kind="stable")
    log_unlisted = LOG_UNLISTED + LOG_UNLISTED_CHARACTER * ids.shape[1]
    gains = WEIGHT * (np.log(probabilities[order]) - log_unlisted)
    return _WordTable(np.ascontiguousarray(ids[order].T), gains.astype(np.float32))


def _log_presence(presence: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of presence probabilities, calibrated so that a presence at the threshold means 1/2.

    Args:
      presence: float32 [N] in 0..1.
      threshold: 0..1.

    Returns:
      log P(position k exists) [N], and log P(a word of m positions ends there) [N + 1].
    """
    p = np.clip(presence.astype(np.float64), PRESENCE_FLOOR, 1 - PRESENCE_FLOOR)
    bias = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else 0.0
    log_odds = np.log(p) - np.log1p(-p) - bias
    return -np.log1p(np.exp(-log_odds)), np.append(-np.log1p(np.exp(log_odds)), 0.0)


@functools.lru_cache(maxsize=4)
def load_vocabulary(name: str, charset: Charset) -> Vocabulary | None:
    """Loads a word prior for a charset.

    Args:
      name: `none`; languages of the wordfreq package (`en`, `en+de`); or a UTF-8 file with one word per line,
        optionally followed by a tab and its count.
      charset: the network's characters.

    Returns:
      the vocabulary; None for `none`.

    Raises:
      UserError: there is no such language, or the file cannot be read or has no word that the charset can write.
    """
    if name == NO_VOCABULARY:
        return None
    path = pathlib.Path(name)
    if not (path.suffix or path.exists()):
        return Vocabulary(_from_languages(name), charset)
    vocabulary = Vocabulary(_from_file(path), charset)
    if not len(vocabulary):
        raise UserError(f"vocabulary is {name!r}: the file has no word in the network's characters")
    return vocabulary


def _from_file(path: pathlib.Path) -> dict[str, float]:
    counts: dict[str, float] = {}
    try:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            word, _, count = line.partition("\t")
            if word.strip():
                counts[word.strip()] = _parse_count(count, number)
    except (OSError, ValueError) as error:
        raise UserError(f"vocabulary is {str(path)!r}: {error}; give {FILE_FORMAT}") from error
    return counts


def _parse_count(text: str, line_number: int) -> float:
    try:
        count = float(text) if text.strip() else 1.0
    except ValueError:
        count = 0.0
    if not 0 < count < math.inf:
        raise ValueError(f"line {line_number}: {text!r} is not a positive count")
    return count


def _from_languages(name: str) -> dict[str, float]:
    import wordfreq

    available = wordfreq.available_languages("best")
    frequencies: collections.defaultdict[str, float] = collections.defaultdict(float)
    for language in name.split("+"):
        if language not in available:
            raise UserError(
                f"vocabulary is {name!r}: give none, {FILE_FORMAT}, or languages out of "
                f"{', '.join(sorted(available))}, joined as en+de"
            )
        for centibels, words in enumerate(wordfreq.get_frequency_list(language)):
            for word in words:
                if word.replace("'", "").isalpha():  # wordfreq lists numbers by their shape only
                    frequencies[word] += 10 ** (-centibels / 100)
    return frequencies
