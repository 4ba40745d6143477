"""Several TensorFlow processes."""
