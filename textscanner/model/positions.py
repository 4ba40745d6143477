"""From maps to positions: H_k = Q * S_k and values pooled under it (paper, section 3.5).

H_k weights the cells of position k: the localization map Q says which cells belong to any character, the order map S
which of them belong to the k-th. The decoder and the language module pool with it. Keras operations: they work on
tensors and on the symbolic tensors of a functional model.

Shapes: B batch, h w map cells, c channels, N positions.
"""

from __future__ import annotations

from typing import Any

from keras import ops

MIN_MASS = 1e-6  # lower bound of a sum over H_k that is a divisor


def position_heat(order: Any, localization: Any) -> Any:
    """H float32 [B, h, w, N] of S [B, h, w, N], background channel dropped, and Q [B, h, w]."""
    return order * localization[..., None]


def heat_mass(heat: Any) -> Any:
    """The sum of each H_k over the map, at least MIN_MASS: float32 [B, N] of heat [B, h, w, N]."""
    return ops.maximum(ops.sum(heat, (1, 2)), MIN_MASS)


def pool(values: Any, heat: Any, mass: Any) -> Any:
    """The mean of values [B, h, w, c] under each H_k, float32 [B, N, c]: one einsum instead of a loop over positions.

    Args:
      values: float32.
      heat: [B, h, w, N].
      mass: of the heat, [B, N].
    """
    return ops.einsum("bhwc,bhwk->bkc", values, heat) / mass[..., None]
