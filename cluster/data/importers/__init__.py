"""Labelled images in the formats that they are found in, one `Source` each; `sources.open_source` finds out which."""
