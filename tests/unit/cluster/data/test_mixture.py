"""The sequence of data sets: exact over a period, even in between, counted without going through it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.data.mixture import WEIGHT_STEPS, Mixture, interval_lengths

PROPERTY = settings(max_examples=50, deadline=None, derandomize=True, database=None)
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=4)
OFFSETS = st.integers(0, 1 << 62)


@PROPERTY
@given(LENGTHS, OFFSETS, st.integers(0, 1 << 50))
def test_a_period_has_each_data_set_as_often_as_its_interval_is_long(lengths, offset, start):
    datasets = Mixture(lengths, offset).datasets(range(start, start + sum(lengths)))
    assert np.bincount(datasets, minlength=len(lengths)).tolist() == lengths


@PROPERTY
@given(LENGTHS, OFFSETS, st.integers(0, 500), st.integers(0, 300), st.integers(1, 9))
def test_counting_agrees_with_the_sequence(lengths, offset, start, extent, stride):
    mixture = Mixture(lengths, offset)
    positions = range(start, start + extent, stride)
    datasets = mixture.datasets(positions)
    for dataset in range(len(lengths)):
        assert mixture.count(dataset, positions) == (datasets == dataset).sum()


@PROPERTY
@given(LENGTHS, OFFSETS, st.integers(0, 1 << 40))
def test_a_position_has_the_given_number_of_rows_before_it(lengths, offset, num_rows):
    mixture = Mixture(lengths, offset)
    for dataset in range(len(lengths)):
        assert mixture.count(dataset, range(mixture.position_of(dataset, num_rows))) == num_rows


@pytest.mark.parametrize("weights", [(3.0, 1.0), (1e-3, 1.0, 1.0), (0.2, 0.3, 0.5)])
def test_every_span_has_nearly_the_share_of_each_data_set(weights):
    datasets = Mixture(interval_lengths(weights), offset=12345).datasets(range(5000))
    for dataset, weight in enumerate(weights):
        expected = weight / sum(weights) * np.arange(1, 5001)
        assert np.abs(np.cumsum(datasets == dataset) - expected).max() < 4


def test_a_vanishing_weight_is_still_drawn():
    assert interval_lengths((1e-30, 1.0)) == [1, WEIGHT_STEPS]
    assert interval_lengths((2.0, 6.0)) == [WEIGHT_STEPS // 4, WEIGHT_STEPS * 3 // 4]
