"""Short names of data sets in a table."""

import itertools

import pytest

from cluster.evaluate.short_names import short_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/data/sets/iiit5k", "/data/sets/svt"], ["iiit5k", "svt"]),
        (["/data/sets/iiit5k/test", "/data/sets/svt/test"], ["iiit5k/test", "svt/test"]),
        (["/a/x/test", "/b/x/test", "/b/y/test"], ["a/x/test", "b/x/test", "y/test"]),
        (["s3://bucket/iiit5k/", "s3://other/iiit5k"], ["bucket/iiit5k", "other/iiit5k"]),
        (["iiit5k", "/data/iiit5k"], ["iiit5k", "data/iiit5k"]),
        (["mine", "yours"], ["mine", "yours"]),
        (["/data/iiit5k"], ["iiit5k"]),
        (["a/b", "a/b/"], ["a/b", "a/b/"]),
        (["/", "s3://bucket"], ["/", "bucket"]),
        ([], []),
    ],
)
def test_names_are_the_last_parts_that_differ(paths, names):
    assert short_names(paths) == dict(zip(paths, names, strict=True))


def test_names_of_different_paths_differ_and_end_their_paths():
    paths = ["/".join(parts) for n in (1, 2, 3, 4) for parts in itertools.product("ab", repeat=n)]
    names = short_names(paths)
    assert len(set(names.values())) == len(paths)
    assert all(path.endswith(name) for path, name in names.items())
