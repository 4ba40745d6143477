"""A trained network and its exports, shared by the tests of this folder."""

import pytest

import textscanner
from textscanner.data.images import decode
from textscanner.export.export_model import FORMATS, export


@pytest.fixture(scope="package")
def reader(overfitted):
    return textscanner.load(overfitted.checkpoint)


@pytest.fixture(scope="package")
def images(overfitted):
    return [decode(record.image, record.source) for record in overfitted.words[:32]]


@pytest.fixture(scope="package", params=FORMATS)
def exported(request, reader, tmp_path_factory):
    return export(reader, request.param, tmp_path_factory.mktemp("export") / request.param)
