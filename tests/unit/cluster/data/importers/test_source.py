"""The files that importers read."""

from cluster.data.importers.registry import open_source
from tests import formats


def test_a_zip_is_read_like_a_folder(seven_words, tmp_path):
    formats.icdar_zip(tmp_path, seven_words)
    source = open_source(str(tmp_path / "ch4_training_word_images_gt.zip"))
    rows = formats.read_all(source)
    assert [(row.text, row.image) for row in rows] == [(record.text, record.image) for record in seven_words]
