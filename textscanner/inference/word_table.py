"""Words of one length with their prior, searched for those that an image makes likely.

Words are grouped by their first characters, and groups that the image makes hopeless are skipped. So half a million
words are compared in a fraction of a millisecond.

Shapes: m characters of a word, W words, G groups, p characters of a prefix, C classes.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

WEIGHT = 0.4  # of word frequencies against the image: the network is overconfident
LOG_UNLISTED = -6.0  # log of the share of texts that are in no list ...
LOG_UNLISTED_CHARACTER = -3.0  # ... and of each of their characters: one out of 20 equally likely ones
LOG_NEGLIGIBLE = -8.0  # a word that is this much less likely than the best hardly changes the posterior of that
PREFIX_LENGTH = 3


class Matches(NamedTuple):
    """Words that an image makes likely.

    Attributes:
      columns: intp [words], of the table.
      log_posteriors: float32 [words], up to the constant of `WordTable.search`.
    """

    columns: np.ndarray
    log_posteriors: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class WordTable:
    """Words of one length m, those with the same prefix side by side.

    Attributes:
      ids: intp [m, W], folded class ids.
      gains: float32 [W], WEIGHT * log (P(w) / P_other(m)).
      starts: intp [G + 1], first column of each group, and W.
      prefixes: intp [p, G], folded class ids of each group's prefix.
      max_gains: float32 [G], the largest gain in each group.
    """

    ids: np.ndarray
    gains: np.ndarray
    starts: np.ndarray
    prefixes: np.ndarray
    max_gains: np.ndarray

    @staticmethod
    def of_words(ids: np.ndarray, probabilities: np.ndarray) -> WordTable:
        """The table of at least one word: folded class ids intp [W, m], probabilities float [W]."""
        length = ids.shape[1]
        gains = WEIGHT * (np.log(probabilities) - (LOG_UNLISTED + LOG_UNLISTED_CHARACTER * length))
        prefix_length = min(PREFIX_LENGTH, length)
        codes = ids[:, :prefix_length] @ (int(ids.max()) + 1) ** np.arange(prefix_length)
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        ids, gains = np.ascontiguousarray(ids[order].T), gains[order].astype(np.float32)
        prefixes = np.ascontiguousarray(ids[:prefix_length, starts])
        return WordTable(ids, gains, np.append(starts, len(gains)), prefixes, np.maximum.reduceat(gains, starts))

    def search(self, log_characters: np.ndarray, constant: float, best: float) -> Matches:
        """The words whose prior lets them be likelier than the best text so far, without those that are negligible.

        Args:
          log_characters: float32 [m, C], log P(position | class).
          constant: added to the gain and the log probabilities of the characters of every word.
          best: log posterior of the best text so far.
        """
        most_likely = log_characters.max(-1)
        losses = log_characters - most_likely[:, None]
        ceiling = np.float32(constant + most_likely.sum())
        floor = np.float32(best + LOG_NEGLIGIBLE)
        bounds = self.max_gains + ceiling  # upper bounds of the log posteriors in each group
        for k, ids in enumerate(self.prefixes):
            bounds += losses[k].take(ids)
        groups = (bounds >= floor).nonzero()[0]
        columns = _ranges(self.starts[groups], self.starts[groups + 1])
        log_posteriors = self.gains[columns] + ceiling
        for k, ids in enumerate(self.ids):
            log_posteriors += losses[k].take(ids.take(columns))
        # Words whose prior cannot make up for anything are no alternatives: with them, posteriors come out too low.
        likely = (log_posteriors >= floor) & (self.gains[columns] + ceiling >= best)
        return Matches(columns[likely], log_posteriors[likely])


def _ranges(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """The numbers of all ranges `start:stop`, one after the other, intp; every range holds at least one."""
    sizes = stops - starts
    ends = np.cumsum(sizes)
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + sizes, sizes))
