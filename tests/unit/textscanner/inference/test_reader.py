"""Reading words with a trained network."""

import numpy as np


def test_character_centres_lie_inside_their_quads(overfitted):
    near = [
        quad[:, 0].min() - 5 < character.x_px < quad[:, 0].max() + 5
        for record, reading in zip(overfitted.words, overfitted.readings, strict=True)
        for quad, character in zip(record.quads, reading.characters, strict=True)
    ]
    assert np.mean(near) > 0.9
