"""Static quantization of an exported network: 8-bit convolutions, everything else in float32.

Convolutions are most of the arithmetic and lose almost no accuracy with 8 bits; attention, GRU and norms are cheap and
would lose accuracy. The input of each convolution gets one range, the smallest and largest value over the calibration
words; each filter gets a scale of its own. Weights use 7 of the 8 bits: x86 processors without VNNI add pairs of
products in 16 bits, which 8-bit weights would overflow. Quantization-aware training was not needed and is left out.
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
    """Quantizes the convolutions of a model to 8 bits.

    Args:
      model: a float32 model with one input, uint8 [B, H, W, 3].
      images: calibration words of the input's size, uint8 [H, W, 3]; at least one.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        float_path, prepared_path, int8_path = (
            str(pathlib.Path(folder) / name) for name in ("float", "prepared", "int8")
        )
        onnx.save(model, float_path)  # passed as an object, the model would be stored with external data, which fails
        # Symbolic shape inference needs sympy and infers nothing more here.
        quant_pre_process(float_path, prepared_path, skip_symbolic_shape=True)
        quantize_static(
            prepared_path,
            int8_path,
            _calibration_reader(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantized = onnx.load(int8_path)
    _remove_unused_domains(quantized)
    return quantized


def _calibration_reader(input_name: str, images: Sequence[np.ndarray]) -> Any:
    """ONNX Runtime's iterator over calibration batches. Its base class is only importable where it is used."""
    from onnxruntime.quantization import CalibrationDataReader

    class ImageBatches(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, np.ndarray]] = (
                {input_name: np.stack(images[start : start + CALIBRATION_BATCH])}
                for start in range(0, len(images), CALIBRATION_BATCH)
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    return ImageBatches()


def _remove_unused_domains(model: onnx.ModelProto) -> None:
    """Removes operator sets that no node uses.

    The preparation lists every operator set that ONNX Runtime knows; other runtimes may refuse those they do not know.
    """
    used = {node.domain for node in model.graph.node}
    used_opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(used_opsets)
