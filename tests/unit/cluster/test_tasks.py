"""Errors that a task returns as a row; tasks on a Ray cluster are tested in tests/cluster."""

import pickle

import numpy as np
import pytest

from cluster.errors import NotFoundError, StorageError
from cluster.tasks import CaptureErrors, raise_failure
from textscanner.errors import UserError


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        (UserError("workers is 0"), UserError),
        (StorageError("no answer"), StorageError),
        (NotFoundError("x does not exist"), StorageError),
    ],
)
def test_user_and_storage_errors_are_raised_again_by_the_consumer(error, error_class):
    result = pickle.loads(pickle.dumps(CaptureErrors(fail)))(error)
    for returned in (result, {name: np.asarray(values) for name, values in result.items()}):  # a row, a batch
        with pytest.raises(error_class, match=str(error)):
            raise_failure(returned)


def test_results_pass_and_bugs_are_not_captured():
    assert CaptureErrors(lambda row: row)({"a": 1}) == {"a": 1}
    raise_failure({"a": 1})
    with pytest.raises(ValueError, match="bug"):
        CaptureErrors(fail)(ValueError("bug"))
