"""The TextScanner network: backbone, heads, assembly. Single-device code; it never knows it is distributed."""

from textscanner.model.assembly import Outputs, build_bare, build_model

__all__ = ["Outputs", "build_bare", "build_model"]
