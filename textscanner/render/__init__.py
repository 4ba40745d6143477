"""Words drawn with exact character quads: fonts, texts, looks, and the drawing itself."""
