"""Static quantisation of an exported network: 8-bit convolutions, everything else in float32.

The convolutions are most of the arithmetic and lose almost nothing with 8 bits; the attention, the GRU and the norms
are cheap and would lose. Each convolution's input gets one range, the smallest and largest value that it takes on the
calibration words; each of its filters a scale of its own. Weights use 7 of the 8 bits: processors of the x86 family
without VNNI add pairs of products in 16 bits, which 8-bit weights would overflow. Quantisation-aware training was not
needed and is left out.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

CALIBRATION_BATCH = 32


def quantize(model: onnx.ModelProto, images: Sequence[np.ndarray]) -> onnx.ModelProto:
    """The model with 8-bit convolutions.

    Args:
      model: a float32 model with one input, uint8 [B, H, W, 3].
      images: calibration words of the input's size, uint8 [H, W, 3]; one at least.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, written = (str(pathlib.Path(folder) / name) for name in ("plain", "prepared", "int8"))
        onnx.save(model, plain)  # given as an object, it would have to be stored with external data, which fails
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)  # that needs sympy, and finds nothing more here
        quantize_static(
            prepared,
            written,
            _batches(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantized = onnx.load(written)
    _forget_unused_domains(quantized)
    return quantized


def _batches(name: str, images: Sequence[np.ndarray]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[dict[str, np.ndarray]] = (
                {name: np.stack(images[start : start + CALIBRATION_BATCH])}
                for start in range(0, len(images), CALIBRATION_BATCH)
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    return Batches()


def _forget_unused_domains(model: onnx.ModelProto) -> None:
    """The preparation lists every operator set that ONNX Runtime knows; other runtimes may refuse what they do not."""
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
