"""Inference: decoding of maps, readers, word priors, lexicons, pseudo-labels."""
