"""The curves of the report."""

import json

import pytest

from textscanner.evaluation.report import _accuracy_names, read_series


@pytest.mark.parametrize(
    ("sets", "cased", "curves"),
    [
        (["one"], 0.0, ["val/one/word_accuracy"]),
        (["one"], 0.5, ["val/one/word_accuracy", "val/word_accuracy_cased"]),
        (["one", "two"], 0.0, ["val/one/word_accuracy", "val/two/word_accuracy", "val/word_accuracy"]),
    ],
)
def test_case_sensitive_accuracy_is_drawn_where_case_is_read(sets, cased, curves):
    metrics = {f"val/{name}/word_accuracy": 0.7 for name in sets}
    metrics |= {"val/word_accuracy": 0.7, "val/word_accuracy_cased": cased, "val/word_accuracy_exact": 0.0}
    assert _accuracy_names(read_series(json.dumps({"step": 1, "time_s": 2.0} | metrics))) == curves
