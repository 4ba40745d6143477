"""A reader as a file that needs nothing of ours: uint8 images in; class ids, confidences and positions out.

Decoding is inside the graph. What a caller must do is said in the metadata: fit the image, look up the characters.
`saved_model` runs in TensorFlow, `onnx` in ONNX Runtime, `litert` on phones and boards. The batch is free in all, and
all compute in float32: what runs them need not know the bfloat16 that a network may have been trained with.
An ONNX file may be made smaller (`half`) or smaller and faster (calibration words: 8-bit convolutions).
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

from textscanner import __version__
from textscanner.charset import FIRST_CHARACTER_ID, UNKNOWN_CHARACTER
from textscanner.checkpoint_files import ONNX_NAME
from textscanner.data.images import PAD_VALUE, fit
from textscanner.evaluation.metrics import WordCounts
from textscanner.export.quantize import quantize
from textscanner.inference.decode import decode
from textscanner.inference.postprocess import READ_BATCH
from textscanner.inference.reader import Reader
from textscanner.model.assembly import forward

Format = Literal["saved_model", "onnx", "litert"]
FORMATS: tuple[str, ...] = get_args(Format)
OUTPUTS = ("ids", "confidences", "positions", "word_confidence", "scores", "presence")
METADATA_NAME = "metadata.json"
ONNX_OPSET = 17  # 18 makes the axes of a mean an input, which tf2onnx shares between means and then turns for one
NOISE_IMAGES = 64
SURE = 0.5  # a word's confidence from which rounding must not change what is read
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
            reading = (decoded.ids, decoded.confidences, decoded.centres, decoded.word_confidence)
            return dict(zip(OUTPUTS, (*reading, decoded.scores, decoded.presence), strict=True))

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


def metadata(reader: Reader, weights: str = "float32") -> dict[str, Any]:
    """What a program needs to know to use an exported model, JSON-compatible; `weights` is how they are stored."""
    model = reader.config.model
    return {
        "textscanner_version": __version__,
        "step": reader.step,
        "weights": weights,
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
            "scores": "float32 [batch, positions, ids]: the share of each id at all positions, for a vocabulary",
            "presence": "float32 [batch, positions], 0..1: how surely each position is there",
        },
        "characters": reader.charset.characters,
        "first_character_id": FIRST_CHARACTER_ID,
        "unknown_character": UNKNOWN_CHARACTER,
        "case_sensitive": reader.charset.case_sensitive,
        "threshold": reader.threshold,
    }


def export(
    reader: Reader,
    form: Format,
    out: pathlib.Path,
    half: bool = False,
    calibration: Sequence[np.ndarray] | None = None,
) -> pathlib.Path:
    """Writes the model into the folder `out` with METADATA_NAME beside it; returns the model's path.

    Args:
      half: store the weights of an ONNX file as float16; with `calibration`, those that stay floats.
      calibration: words, uint8 RGB of any size; if given, the convolutions of an ONNX file compute with 8 bits in the
        ranges that these words need.

    Raises:
      ValueError: there is no such format, it cannot be stored so, there is no calibration word, or the file is there.
    """
    if form not in FORMATS:
        raise ValueError(f"--format is {form!r}: one of {', '.join(FORMATS)}")
    if form != "onnx" and (half or calibration is not None):
        raise ValueError(f"--format is {form}: --fp16-weights and --int8 are for onnx")
    if calibration is not None and not calibration:
        raise ValueError("--int8 has no word to calibrate with: give --calibrate a data set or a folder of words")
    names = {"saved_model": "saved_model", "onnx": ONNX_NAME, "litert": "model.tflite"}
    path = out / names[form]
    if path.exists():
        raise ValueError(f"{path} is there already: delete it or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    exported = _Exported(reader.in_float32())
    told = metadata(reader, "int8" if calibration is not None else "float16" if half else "float32")
    if form == "saved_model":
        tf.saved_model.save(exported, str(path), signatures={"serving_default": exported.read})
    elif form == "onnx":
        fitted = None if calibration is None else [fit(image, reader.config.model)[0] for image in calibration]
        _write_onnx(exported, told, path, half, fitted)
    else:
        _write_litert(exported, path)
    (out / METADATA_NAME).write_text(json.dumps(told, indent=2, ensure_ascii=False))
    return path


def _write_onnx(
    exported: _Exported, told: dict[str, Any], path: pathlib.Path, half: bool, calibration: list[np.ndarray] | None
) -> None:
    import onnx
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(
        exported.read, input_signature=exported.read.input_signature, opset=ONNX_OPSET
    )
    if calibration is not None:
        model = quantize(model, calibration)
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
    """How an exported model reads against its checkpoint.

    Attributes:
      num_words, num_different: images read by both, and how many of them differently.
      num_sure, num_sure_different: the same of the words that the checkpoint reads with a confidence of SURE or more.
      confidence_gap: the largest difference of a character's confidence, in words read alike.
      wanted, got: the scores of the checkpoint and of the exported model where the text is known.
    """

    num_words: int = 0
    num_different: int = 0
    num_sure: int = 0
    num_sure_different: int = 0
    confidence_gap: float = 0.0
    wanted: WordCounts = dataclasses.field(default_factory=WordCounts)
    got: WordCounts = dataclasses.field(default_factory=WordCounts)

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            self.num_words + other.num_words,
            self.num_different + other.num_different,
            self.num_sure + other.num_sure,
            self.num_sure_different + other.num_sure_different,
            max(self.confidence_gap, other.confidence_gap),
            self.wanted + other.wanted,
            self.got + other.got,
        )


def noise(reader: Reader) -> list[np.ndarray]:
    """NOISE_IMAGES of the network's size: nothing that a network is sure of, so that small errors show."""
    model = reader.config.model
    shape = (NOISE_IMAGES, model.height_px, model.width_px, 3)
    return list(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def compare(reader: Reader, run: Runner, images: Sequence[np.ndarray], texts: Sequence[str] = ()) -> Comparison:
    """Reads images (uint8 RGB of any size) with both; `texts` are what they say, where that is known."""
    total = Comparison()
    for start in range(0, len(images), READ_BATCH):
        part = slice(start, start + READ_BATCH)
        batch = np.stack([fit(image, reader.config.model)[0] for image in images[part]])
        total += _compare_batch(reader, run, batch, texts[part])
    return total


def _compare_batch(reader: Reader, run: Runner, batch: np.ndarray, texts: Sequence[str]) -> Comparison:
    wanted, got = reader.decode_batch(batch), run(batch)
    different = (wanted.ids != got["ids"]).any(1)
    gaps = np.nan_to_num(np.abs(wanted.confidences - got["confidences"]), nan=np.inf)[~different]
    scores = [
        WordCounts.from_pairs(texts, [reader.charset.decode(row) for row in ids]) if texts else WordCounts()
        for ids in (wanted.ids, got["ids"])
    ]
    sure = wanted.word_confidence >= SURE
    return Comparison(
        num_words=len(batch),
        num_different=int(different.sum()),
        num_sure=int(sure.sum()),
        num_sure_different=int((different & sure).sum()),
        confidence_gap=float(gaps.max(initial=0)),
        wanted=scores[0],
        got=scores[1],
    )
