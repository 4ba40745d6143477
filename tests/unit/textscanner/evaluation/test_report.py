"""The curves of the report."""

import json

import pytest

from textscanner.evaluation.report import CASED_METRICS, _accuracy_names, read_series


@pytest.mark.parametrize(
    ("sets", "case_sensitive", "curves"),
    [
        (["one"], False, ["val/one/word_accuracy"]),
        (["one"], True, ["val/one/word_accuracy", *CASED_METRICS]),
        (["one", "two"], False, ["val/one/word_accuracy", "val/two/word_accuracy", "val/word_accuracy"]),
    ],
)
@pytest.mark.parametrize("cased", [0.0, 0.5])
def test_case_sensitive_accuracy_is_drawn_where_case_is_read(sets, case_sensitive, curves, cased):
    """Any charset reads words of digits with the right case; and a curve at zero is a result too."""
    metrics = {f"val/{name}/word_accuracy": 0.7 for name in sets}
    metrics |= {"val/word_accuracy": 0.7, "val/word_accuracy_cased": cased, "val/word_accuracy_exact": 0.0}
    assert _accuracy_names(read_series(json.dumps({"step": 1, "time_s": 2.0} | metrics)), case_sensitive) == curves
