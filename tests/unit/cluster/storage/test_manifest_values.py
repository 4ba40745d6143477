"""Values in manifests that others may have written."""

import pytest

from cluster.storage.manifest_values import is_count, is_sha256


@pytest.mark.parametrize(
    "value", ["", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "../" + "0" * 61, None, 7, b"0" * 64]
)
def test_only_64_hexadecimal_digits_are_a_hash(value):
    assert is_sha256("0123456789abcdef" * 4)
    assert not is_sha256(value)


@pytest.mark.parametrize("value", [-1, 1.0, True, "1", None, [1], float("nan")])
def test_only_whole_numbers_from_0_are_a_count(value):
    assert is_count(0) and is_count(10**30)
    assert not is_count(value) and not is_count(value, 5)


def test_a_count_may_have_a_maximum():
    assert is_count(5, 5) and not is_count(6, 5)
