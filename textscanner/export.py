"""A reader as a file that needs nothing of ours: uint8 images in; class ids, confidences and positions out.

Decoding is inside the graph. What a caller must do is said in the metadata: fit the image, look up the characters.
`saved_model` runs in TensorFlow, `onnx` in ONNX Runtime, `litert` on phones and boards. The batch is free in all.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

import textscanner
from textscanner.charset import FIRST_CHARACTER_ID, UNKNOWN_CHARACTER
from textscanner.decode import decode
from textscanner.images import PAD_VALUE, fit
from textscanner.layout import ONNX_NAME
from textscanner.model.assembly import forward
from textscanner.reader import Reader

Format = Literal["saved_model", "onnx", "litert"]
FORMATS: tuple[str, ...] = get_args(Format)
OUTPUTS = ("ids", "confidences", "positions", "word_confidence")
METADATA_NAME = "metadata.json"
ONNX_OPSET = 17  # 18 makes the axes of a mean an input, which tf2onnx shares between means and then turns for one
NOISE_IMAGES = 64
HALVED_FROM = 1024  # elements; smaller constants (and shapes) stay as they are

Runner = Callable[[np.ndarray], dict[str, np.ndarray]]
"""uint8 images [B, H, W, 3] -> the arrays of OUTPUTS."""


class _Exported(tf.Module):
    """The traced function; the model is an attribute so that its variables are found."""

    def __init__(self, reader: Reader) -> None:
        super().__init__("textscanner")
        self.model = _unrolled(reader.model)
        model = reader.config.model
        shape = (None, model.height_px, model.width_px, 3)

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8, name="image")])
        def read(image: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = forward(self.model, image, training=False)
            decoded = decode(outputs, reader.threshold, model.map_stride_x, model.map_stride_y)
            values = (decoded.ids, decoded.confidences, decoded.centres, decoded.word_confidence)
            return dict(zip(OUTPUTS, values, strict=True))

        self.read = read


def _unrolled(model: keras.Model) -> keras.Model:
    """The model with its GRU written out step by step: converters turn a loop into something slow, or refuse it."""

    def unroll(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        for inner in (config, *(config[k]["config"] for k in ("layer", "backward_layer") if config.get(k))):
            if "unroll" in inner:
                inner["unroll"] = True
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=unroll)
    copy.set_weights(model.get_weights())
    return copy


def metadata(reader: Reader) -> dict[str, Any]:
    """What a program needs to know to use an exported model, JSON-compatible."""
    model = reader.config.model
    return {
        "textscanner_version": textscanner.__version__,
        "step": reader.step,
        "input": {
            "name": "image",
            "dtype": "uint8",
            "shape": ["batch", model.height_px, model.width_px, 3],
            "colours": "RGB, 0..255, not normalised",
            "resize": model.resize,
            "max_stretch": model.max_stretch,
            "pad_value": PAD_VALUE,
        },
        "outputs": {
            "ids": "int32 [batch, positions]: 0 behind the word, 1 unknown, then the characters in order",
            "confidences": "float32 [batch, positions], 0..1",
            "positions": "float32 [batch, positions, 2]: centre x, y in pixels of the input",
            "word_confidence": "float32 [batch], 0..1: the product over the characters",
        },
        "characters": reader.charset.characters,
        "first_character_id": FIRST_CHARACTER_ID,
        "unknown_character": UNKNOWN_CHARACTER,
        "case_sensitive": reader.charset.case_sensitive,
        "threshold": reader.threshold,
    }


def export(reader: Reader, form: Format, out: pathlib.Path, half: bool = False) -> pathlib.Path:
    """Writes the model into the folder `out` with METADATA_NAME beside it; returns the model's path.

    `half` stores the weights of an ONNX file as float16.

    Raises:
      ValueError: there is no such format, or it is exported there already.
    """
    if form not in FORMATS:
        raise ValueError(f"--format is {form!r}: one of {', '.join(FORMATS)}")
    names = {"saved_model": "saved_model", "onnx": ONNX_NAME, "litert": "model.tflite"}
    path = out / names[form]
    if path.exists():
        raise ValueError(f"{path} is there already: delete it or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    exported = _Exported(reader)
    if form == "saved_model":
        tf.saved_model.save(exported, str(path), signatures={"serving_default": exported.read})
    elif form == "onnx":
        _write_onnx(exported, metadata(reader), path, half)
    else:
        _write_litert(exported, path)
    (out / METADATA_NAME).write_text(json.dumps(metadata(reader), indent=2, ensure_ascii=False))
    return path


def _write_onnx(exported: _Exported, told: dict[str, Any], path: pathlib.Path, half: bool) -> None:
    import onnx
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(
        exported.read, input_signature=exported.read.input_signature, opset=ONNX_OPSET
    )
    onnx.helper.set_model_props(model, {"textscanner": json.dumps(told, ensure_ascii=False)})
    if half:
        _halve(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _halve(graph: Any) -> None:
    """Stores large float32 constants as float16; a session widens them when it opens, and computes as before."""
    import onnx

    casts = []
    for at, tensor in enumerate(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < HALVED_FROM:
            continue
        stored = f"{tensor.name}__half"
        casts.append(onnx.helper.make_node("Cast", [stored], [tensor.name], to=onnx.TensorProto.FLOAT))
        graph.initializer[at].CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _write_litert(exported: _Exported, path: pathlib.Path) -> None:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    # The converter leaves Keras 3's weights variables, and their values out of the file: frozen here. No public name.
    frozen = convert_variables_to_constants_v2(exported.read.get_concrete_function())
    module = tf.Module()
    module.read = tf.function(
        lambda image: dict(zip(sorted(OUTPUTS), frozen(image), strict=True)),  # flattened: in the names' order
        input_signature=exported.read.input_signature,
    )
    with tempfile.TemporaryDirectory() as folder:  # by way of a SavedModel, which carries the names
        tf.saved_model.save(module, folder, signatures={"serving_default": module.read})
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def open_exported(path: pathlib.Path) -> Runner:
    """The function of an exported model, by whatever runs its format.

    Raises:
      ValueError: it is none of the formats.
    """
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda images: dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"image": images}), strict=True))
    if path.suffix == ".tflite":
        return _open_litert(path)
    if path.is_dir():
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
        return lambda images: {name: value.numpy() for name, value in signature(image=tf.constant(images)).items()}
    raise ValueError(f"{path} is no exported model: .onnx, .tflite or the folder of a SavedModel")


def _open_litert(path: pathlib.Path) -> Runner:
    with warnings.catch_warnings():  # that it moves to a package of its own
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(str(path))
    runner = interpreter.get_signature_runner()
    return lambda images: runner(image=images)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How an exported model reads against its checkpoint: words compared, words that differ, largest difference of
    a confidence."""

    num_words: int
    num_different: int
    confidence_gap: float


def compare(reader: Reader, run: Runner, images: Sequence[np.ndarray]) -> Comparison:
    """Reads noise and the given images (uint8 RGB of any size) with both."""
    model = reader.config.model
    noise = np.random.default_rng(0).integers(0, 256, (NOISE_IMAGES, model.height_px, model.width_px, 3), np.uint8)
    inputs = np.concatenate([noise, *(fit(image, model)[0][None] for image in images)])
    different, gap = 0, 0.0
    for start in range(0, len(inputs), NOISE_IMAGES):
        batch = inputs[start : start + NOISE_IMAGES]
        wanted, got = reader.decode_batch(batch), run(batch)
        different += int((wanted.ids != got["ids"]).any(1).sum())
        gap = max(gap, float(np.nan_to_num(np.abs(wanted.confidences - got["confidences"]), nan=np.inf).max()))
    return Comparison(len(inputs), different, gap)
