"""Importers of labelled images: `registry.FORMATS` lists the formats, `registry.open_source` opens a `Source`."""
