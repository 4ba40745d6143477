"""Strategies for inputs, and the folder in which they are tried."""

import contextlib
import json
import pathlib
import struct
import tempfile
from collections.abc import Iterator

import cv2
import numpy as np
from hypothesis import strategies as st

SECRET = cv2.imencode(".png", np.full((9, 17, 3), 7, np.uint8))[1].tobytes()  # a valid image, to be read by nobody
# Names that lead out of a folder, that no file can have, or that mean something else to a shell, a disk or a terminal.
NAMES = st.one_of(
    st.sampled_from(
        [
            *("a.jpg", "", ".", "..", "../secret.jpg", "../../secret.jpg", "x/../../secret.jpg", "/etc/passwd"),
            *(
                "a\0b",
                "é" * 200,
                "a/" * 700,
                "\ud800",
                "\x1b[2J",
                "C:\\a",
                "~/a",
                "%2e%2e/a",
                "a.jpg/b",
                "images/a.jpg",
            ),
        ]
    ),
    st.text(max_size=12),
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**70), 10**400, float("nan"), float("inf"), 1e308])
    | st.floats()
    | NAMES,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=4), children, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid input with up to four bytes, numbers or pieces changed."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        change = draw(st.sampled_from(["bytes", "number", "cut", "insert", "remove", "repeat"]))
        if change == "bytes":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == "number":
            width = draw(st.sampled_from(["<B", "<H", ">H", "<I", ">I", "<Q", ">Q"]))
            limit = 256 ** struct.calcsize(width) - 1
            number = struct.pack(width, draw(st.sampled_from([0, 1, limit, limit >> 1, (limit >> 1) + 1])))
            data[at : at + len(number)] = number
        elif change == "cut":
            del data[at:]
        elif change == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        elif change == "remove":
            del data[at : at + draw(st.integers(1, 64))]
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


def changed_json(valid: object) -> st.SearchStrategy[bytes]:
    """A JSON document in which one value, at any depth, is another one; or that is damaged as bytes."""
    paths = list(_paths(valid))
    replaced = st.builds(
        lambda path, value: json.dumps(_with(valid, path, value)).encode(), st.sampled_from(paths), JSON_VALUES
    )
    return replaced | mutated(json.dumps(valid).encode())


def _paths(value: object, path: tuple = ()) -> Iterator[tuple]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from _paths(child, (*path, key))


def _with(value: object, path: tuple, new: object) -> object:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = _with(copy[path[0]], path[1:], new)
    return copy


@contextlib.contextmanager
def sandbox() -> Iterator[pathlib.Path]:
    """A folder `a/b`, and a check that nothing appears or changes beside it. `secret.jpg` lies beside it, too."""
    with tempfile.TemporaryDirectory() as root:
        folder = pathlib.Path(root) / "a" / "b"
        folder.mkdir(parents=True)
        for parent in (folder.parent, folder.parent.parent):
            (parent / "secret.jpg").write_bytes(SECRET)
        before = _content_beside(folder)
        yield folder
        assert _content_beside(folder) == before


def _content_beside(folder: pathlib.Path) -> dict[str, bytes | None]:
    root = folder.parent.parent
    paths = [path for path in root.rglob("*") if folder not in (path, *path.parents)]
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in paths}
