"""Settings of an import."""

import pytest

from cluster.data.prepare_settings import PrepareSettings
from textscanner.charset import ALPHANUMERIC
from textscanner.errors import UserError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shard_mib", 0),
        ("shard_mib", 1025),
        ("max_reject_share", -0.1),
        ("max_reject_share", 2),
        ("unknown", "drop"),
        ("case", "upper"),
        ("max_label_length", 0),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_field(field, value):
    with pytest.raises(UserError, match=rf"^{field} is .*must"):
        PrepareSettings(charset=ALPHANUMERIC, **{field: value})
