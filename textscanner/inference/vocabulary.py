"""Word prior: corrects ambiguous readings with word frequencies (a noisy-channel model).

For a word w of n characters, log P(w | image) = log P(image | w) + WEIGHT * log (P(w) / P_other(n)) + constant. The
network gives the first term: class probabilities and presence of each position. Word frequencies give P(w). P_other(n)
is the prior of any text that is not listed: such texts keep the network's reading, so that names, codes and numbers
that are clear in the image stay unchanged. Lengths tried are the network's own and one more or less. Punctuation that
the network reads clearly before or after a word is set aside for the look-up; letters get their case from the image.

Needs no TensorFlow and no training. The constants were chosen on the validation words of docs/accuracy.md.

Shapes: N positions, C classes, m characters of a word.
"""

from __future__ import annotations

import collections
import functools
import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from textscanner.charset import FIRST_CHARACTER_ID, Charset
from textscanner.checkpoint_files import NO_VOCABULARY
from textscanner.errors import UserError
from textscanner.inference.letter_case import LetterCase, lower
from textscanner.inference.word_table import WordTable

MISREAD = 0.01  # probability that a character is any other one, whatever the network says
PRESENCE_FLOOR = 1e-3  # lower bound of a presence before the logarithm
CLEAR_PUNCTUATION = 0.5  # probability of all punctuation together from which a character at an end is not a letter
MAX_LENGTH = 25  # longer words are not listed
FILE_FORMAT = "a UTF-8 text file with one word per line, optionally followed by a tab and its count"


class _Frame(NamedTuple):
    """The part of a reading that is looked up: positions `start:stop`; the rest is punctuation that stays.

    Attributes:
      lengths: of the words that may stand there; other than stop - start only if nothing follows.
    """

    start: int
    stop: int
    lengths: tuple[int, ...]

    @staticmethod
    def of(start: int, stop: int, reading_length: int, num_positions: int) -> _Frame:
        """The frame `start:stop` of a reading, in a network with `num_positions` positions."""
        size = stop - start
        lengths = (size, size - 1, size + 1) if stop == reading_length else (size,)
        return _Frame(start, stop, tuple(m for m in lengths if start + m <= num_positions))

    @property
    def size(self) -> int:
        """Number of positions of the reading."""
        return self.stop - self.start


class _Evidence(NamedTuple):
    """What the network says about a word.

    Attributes:
      log_characters: float32 [N, C], log P(position | class) over folded classes.
      most_likely: float32 [N], its largest value at each position.
      ceilings: float64 [N + 1], upper bound of log P(image | text) over all texts of each length.
    """

    log_characters: np.ndarray
    most_likely: np.ndarray
    ceilings: np.ndarray

    @staticmethod
    def of(log_characters: np.ndarray, presence: np.ndarray, threshold: float) -> _Evidence:
        """The evidence of class probabilities and presences; see `Vocabulary.correct`."""
        log_present, log_end = _log_presence(presence, threshold)
        most_likely = log_characters.max(-1)
        return _Evidence(log_characters, most_likely, np.append(0.0, np.cumsum(most_likely + log_present)) + log_end)


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
        self._letter_case = LetterCase(charset)
        folded = self._letter_case.folded
        self._fold = np.eye(len(folded), dtype=np.float32)[folded]  # [C, C]: adds the classes of one letter up
        self._num_characters = len(np.unique(folded)) - FIRST_CHARACTER_ID
        self._punctuation = FIRST_CHARACTER_ID + np.flatnonzero([not c.isalnum() for c in charset.characters])
        frequencies: dict[str, float] = {}
        for word, frequency in words.items():
            key = "".join(map(lower, word)) if not word.islower() else word
            if not key.isalnum():
                key = "".join(c for c in key if c.isalnum() or c in charset.characters)
            frequencies[key] = frequencies.get(key, 0.0) + frequency
        by_length: collections.defaultdict[int, list[str]] = collections.defaultdict(list)
        for key in frequencies:
            by_length[len(key)].append(key)
        class_of_code = _class_table(charset, folded)
        total = sum(frequencies.values())
        self._tables: dict[int, WordTable] = {}
        for length in range(1, MAX_LENGTH + 1):
            keys = by_length[length]
            # All words of a length as one array of code points: half a million words are looked up at once.
            codes = np.array(keys, f"<U{length}").view(np.uint32).reshape(-1, length)
            ids = class_of_code[np.minimum(codes, len(class_of_code) - 1)]
            writable = (ids > 0).all(1)
            if writable.any():
                probabilities = np.array([frequencies[key] for key in keys])[writable] / total
                self._tables[length] = WordTable.of_words(ids[writable], probabilities)

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
        evidence = _Evidence.of(self._log_characters(probabilities), presence, threshold)
        read_ids = np.argmax(evidence.log_characters[:length], -1)
        best_ids, best = read_ids, float(evidence.ceilings[length])
        # All unlisted texts of this length taken together, then the listed words that are not negligible.
        log_posteriors = [best - evidence.most_likely[:length].sum()]
        for frame in self._frames(probabilities[:length], len(presence)):
            for m in (m for m in frame.lengths if m in self._tables):
                table, positions = self._tables[m], slice(frame.start, frame.start + m)
                constant = evidence.ceilings[length - frame.size + m] - evidence.most_likely[positions].sum()
                columns, found = table.search(evidence.log_characters[positions], constant, best)
                log_posteriors.extend(found.tolist())
                if len(found) and found.max() > best:
                    best, word = float(found.max()), table.ids[:, columns[found.argmax()]]
                    best_ids = np.concatenate([read_ids[: frame.start], word, read_ids[frame.stop :]])
        posterior = 1 / np.exp(np.array(log_posteriors) - best).sum()
        return Correction(*self._letter_case.restore(best_ids, probabilities), float(posterior))

    def _log_characters(self, probabilities: np.ndarray) -> np.ndarray:
        """log P(position | class) float32 [N, C] over folded classes, from class probabilities float32 [N, C]."""
        return np.asarray(np.log((1 - MISREAD) * (probabilities @ self._fold) + MISREAD / self._num_characters))

    def _frames(self, probabilities: np.ndarray, num_positions: int) -> list[_Frame]:
        """The parts of a reading to look up: without punctuation around it, and the whole.

        Args:
          probabilities: float32 [length, C], of the positions of the reading.
          num_positions: N.
        """
        whole = _Frame.of(0, len(probabilities), len(probabilities), num_positions)
        others = np.flatnonzero(probabilities[:, self._punctuation].sum(-1) < CLEAR_PUNCTUATION)
        if not len(others):
            return [whole]
        inner = _Frame.of(int(others[0]), int(others[-1]) + 1, len(probabilities), num_positions)
        return [whole] if inner == whole else [inner, whole]


def _class_table(charset: Charset, folded: np.ndarray) -> np.ndarray:
    """intp [codes]: folded class of a character by its code point; 0 if the charset does not contain it."""
    classes = {ord(lower(c)): folded[i] for i, c in enumerate(charset.characters, FIRST_CHARACTER_ID)}
    table = np.zeros(max(classes) + 2, np.intp)  # the last entry stands for all larger code points
    table[list(classes)] = list(classes.values())
    return table


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
