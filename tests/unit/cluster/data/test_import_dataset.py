"""The rows of an import: what a source's words become."""

import json

import pytest

from cluster.data.import_dataset import _identity, _ImportPart
from cluster.data.importers.registry import open_source
from cluster.data.prepare_settings import PrepareSettings
from textscanner.charset import PRINTABLE_ASCII


@pytest.fixture
def source(words, tmp_path):
    """Two images of the same word, the second with a cased label."""
    rows = [{"file": "a.jpg", "text": "HOTEL"}, {"file": "a.jpg", "text": "HOTEL", "text_cased": "Hotel!"}]
    (tmp_path / "a.jpg").write_bytes(words[0].image)
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return open_source(str(tmp_path))


@pytest.mark.parametrize("case", ["known", "unknown"])
def test_the_case_of_a_cased_label_is_known_and_that_of_others_is_as_set(case, source):
    import_part = _ImportPart(source, PrepareSettings(charset=PRINTABLE_ASCII, case=case))
    plain, cased = (record for part in source.parts(10) for record in import_part(part))
    assert (plain.text, plain.case_known) == ("HOTEL", case == "known")
    assert (cased.text, cased.case_known) == ("Hotel!", True)


def test_parts_of_an_import_with_another_case_are_not_reused(source):
    known, unknown = (
        _identity(source, 2, PrepareSettings(charset=PRINTABLE_ASCII, case=case)) for case in ("known", "unknown")
    )
    assert known != unknown
