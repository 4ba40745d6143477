"""Word records, annotations and images."""
