"""One process, no Ray."""
