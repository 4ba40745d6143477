"""Labelling a data set with quads: what is carried over from its rows."""

import dataclasses
from unittest import mock

from cluster.data.label_dataset import LABELLED, _LabelRowGroup


def test_records_keep_whether_their_case_is_known_and_the_labeller_is_told(words):
    records = tuple(dataclasses.replace(words[i], quads=None, case_known=i == 0) for i in range(2))
    labeller = mock.Mock()
    labeller.quads.return_value = [record.quads for record in words[:2]]
    rows = list(_LabelRowGroup("", "", 0.5, False)._label(labeller, records))
    assert [row.case_known for row in rows if row != LABELLED] == [True, False]
    assert labeller.quads.call_args.args[2] == [True, False]
