"""Search in a table of words against comparing all of them."""

import numpy as np
import pytest

from textscanner.inference.word_table import LOG_NEGLIGIBLE, WordTable


@pytest.mark.parametrize("length", [1, 2, 3, 6])
@pytest.mark.parametrize("seed", range(5))
def test_all_words_that_are_not_negligible_are_found(length, seed):
    rng = np.random.default_rng(seed)
    num_classes = 12
    words = np.unique(rng.integers(2, num_classes, (300, length)), axis=0)
    table = WordTable.of_words(words, rng.exponential(size=len(words)))
    log_characters = np.log(rng.dirichlet([0.3] * num_classes, length).astype(np.float32) + 1e-4)
    expected = table.gains - 2.0 + sum(log_characters[k][table.ids[k]] for k in range(length))
    ceilings = table.gains - 2.0 + log_characters.max(-1).sum()
    best = float(np.quantile(ceilings, 0.3))
    found = table.search(log_characters, -2.0, best)
    assert set(found.columns) == set(np.flatnonzero((expected >= best + LOG_NEGLIGIBLE) & (ceilings >= best)))
    assert len(found.columns) > 0
    np.testing.assert_allclose(found.log_posteriors, expected[found.columns], atol=1e-4)
    assert len(table.search(log_characters, -2.0, float(expected.max()) + 20).columns) == 0


def test_the_table_holds_every_word_with_its_gain():
    words = np.array([[5, 6], [2, 3], [5, 2]])
    table = WordTable.of_words(words, np.array([0.5, 0.3, 0.2]))
    by_word = {tuple(word): gain for word, gain in zip(table.ids.T.tolist(), table.gains, strict=True)}
    assert by_word[5, 6] > by_word[2, 3] > by_word[5, 2]
    assert len(by_word) == 3 and len(table.starts) == 4
