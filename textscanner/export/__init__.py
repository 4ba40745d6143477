"""Export to other runtimes: one file per format, the comparison with the checkpoint, 8-bit quantization."""
