"""Renders words with exact character quads: fonts, texts, layouts, surfaces."""
