"""Zip and tar archives."""

import gzip
import io
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import NAMES, mutated, sandbox
from tests.fuzz.test_label_files import IMAGE, import_all


def zip_of(names, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in (("labels.tsv", b"a.jpg\tword\nb.jpg\tother\n"), *((name, IMAGE) for name in names)):
            member = zipfile.ZipInfo(f"top/{name}")  # with a fixed date
            member.compress_type = method
            archive.writestr(member, content)
    return buffer.getvalue()


def tar_of(names):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            for suffix, content in ((".jpg", IMAGE), (".json", b'{"text": "word"}'), (".txt", b"word")):
                member = tarfile.TarInfo(name + suffix)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVES = {
    "deflated.zip": zip_of(["a.jpg", "b.jpg"]),
    "stored.zip": zip_of(["a.jpg"], zipfile.ZIP_STORED),
    "plain.tar": tar_of(["a", "b" * 120, "é"]),  # with extended headers
    "packed.tar.gz": gzip.compress(tar_of(["a", "b"]), mtime=0),
}


def import_archive(name, data):
    with sandbox() as folder:
        (folder / name).write_bytes(data)
        # A zip is read like a folder; tars are the data files of one.
        import_all(folder / name if name.endswith(".zip") else folder, "tsv" if name.endswith(".zip") else "webdataset")


@pytest.mark.parametrize("name", ARCHIVES)
@given(st.data())
def test_any_archive(name, data):
    import_archive(name, data.draw(mutated(ARCHIVES[name])))


@given(st.lists(NAMES, max_size=3))
def test_any_member_name(names):
    plain = [name.replace("\0", "").encode(errors="replace").decode() for name in names]
    import_archive("names.zip", zip_of(plain))
    import_archive("names.tar", tar_of(plain))
