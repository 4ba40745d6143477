"""Arguments of `textscanner tune`."""

from typing import get_args

import pytest

from cluster.tune.options import Mode, SchedulerName, SearchName
from cluster.tune.search_space import SPACES
from jobs.tune import _parser


def help_of(flag):
    (action,) = (action for action in _parser()._actions if flag in action.option_strings)
    return action.help, action.choices


@pytest.mark.parametrize(
    ("flag", "names"),
    [("--scheduler", get_args(SchedulerName)), ("--search", get_args(SearchName)), ("--space", SPACES)],
)
def test_help_names_every_choice(flag, names):
    """Spaces are stated by hand: their module loads numpy, which `--help` must not wait for."""
    text, _ = help_of(flag)
    assert [name for name in names if name not in text] == []


def test_modes_are_those_of_a_sweep():
    assert set(help_of("--mode")[1]) == set(get_args(Mode))
