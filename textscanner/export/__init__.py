"""A checkpoint as ONNX, SavedModel or LiteRT."""
