"""From images to text: decoding, readers, vocabulary."""
