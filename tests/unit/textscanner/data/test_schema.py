"""Word records."""

import numpy as np
import pytest

from textscanner.data.schema import ARROW_SCHEMA, WordRecord, from_table, to_table


def test_quads_must_match_the_text():
    with pytest.raises(ValueError, match="one quad"):
        WordRecord(b"", "abc", np.zeros((2, 4, 2), np.float32), "x")


def test_records_survive_the_conversion_to_arrow():
    quads = np.arange(16, dtype=np.float32).reshape(2, 4, 2)
    records = [WordRecord(b"image", "ab", quads, "x"), WordRecord(b"", "é", None, "", case_known=False)]
    table = to_table(records)
    assert table.schema == ARROW_SCHEMA
    first, second = from_table(table)
    assert (first.image, first.text, first.source) == (b"image", "ab", "x")
    np.testing.assert_array_equal(first.quads, quads)
    assert (second.text, second.quads) == ("é", None)
    assert (first.case_known, second.case_known) == (True, False)
