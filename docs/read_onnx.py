"""Reads word images with an exported model: `python read_onnx.py model.onnx IMAGE...`

Needs onnxruntime, numpy and opencv-python, and nothing of the package that trained the model.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime


def fit(image, spec):
    """The image at the input size: stretched, or its aspect ratio kept up to max_stretch and padded on the right."""
    _, height, width, _ = spec["shape"]
    used = width
    if spec["resize"] == "pad":
        natural_width = image.shape[1] * height / image.shape[0]
        used = int(np.clip(round(natural_width * spec["max_stretch"]), 8, width))
    is_shrinking = image.shape[0] > height or image.shape[1] > used
    image = cv2.resize(image, (used, height), interpolation=cv2.INTER_AREA if is_shrinking else cv2.INTER_LINEAR)
    fill = (spec["pad_value"],) * 3
    return cv2.copyMakeBorder(image, 0, 0, 0, width - used, cv2.BORDER_CONSTANT, value=fill)


def main(model, *paths):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["textscanner"])
    alphabet = ["", metadata["unknown_character"], *metadata["characters"]]  # by class id; 0 is background
    images = [cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB) for path in paths]
    batch = np.stack([fit(image, metadata["input"]) for image in images])
    ids, confidences = session.run(["ids", "word_confidence"], {"image": batch})
    for path, row, confidence in zip(paths, ids, confidences):
        print(path, "".join(alphabet[i] for i in row), f"{confidence:.2f}", sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
