"""The TextScanner network: backbone, heads, assembly. Plain single-device Keras code."""

from textscanner.model.assembly import Outputs, build_model, build_without_pretrained

__all__ = ["Outputs", "build_model", "build_without_pretrained"]
