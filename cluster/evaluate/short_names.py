"""Short names of paths for tables: the last parts of a path, as many as distinguish it from the others."""

from __future__ import annotations

from collections.abc import Iterable


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Maps each path or URI to its shortest suffix of whole parts that no other one of them ends with.

    `/data/sets/iiit5k/test` and `/data/sets/svt/test` become `iiit5k/test` and `svt/test`. A path that is itself the
    end of another one stays as it is.
    """
    paths = list(dict.fromkeys(paths))
    parts_of = {path: path.rstrip("/").split("/") for path in paths}
    return {path: _unique_suffix(path, parts_of) for path in paths}


def _unique_suffix(path: str, parts_of: dict[str, list[str]]) -> str:
    parts = parts_of[path]
    others = [other for other_path, other in parts_of.items() if other_path != path]
    for count in range(1, len(parts) + 1):
        suffix = parts[-count:]
        if suffix[0] and all(other[-count:] != suffix for other in others):
            return "/".join(suffix)
    return path
