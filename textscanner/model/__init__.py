"""The TextScanner network: backbone, heads, assembly. Single-device code; it never knows it is distributed."""

from textscanner.model.assembly import Outputs, build_model, build_without_pretrained

__all__ = ["Outputs", "build_model", "build_without_pretrained"]
