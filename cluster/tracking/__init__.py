"""Where a run's metrics go: metrics.jsonl, TensorBoard, Prometheus, MLflow, Weights & Biases."""
