"""Discovery, checks and splits of fonts."""

import pathlib

import pytest

from tests.factories import settings
from textscanner.errors import UserError
from textscanner.render import fonts as font_module
from textscanner.render.fonts import Font, covers, find_fonts, select


def test_heldout_families_are_not_among_training_families():
    fonts = find_fonts()
    families = [{f.family for f in select(fonts, split)} for split in ("train", "heldout")]
    assert families[0] and families[1] and not families[0] & families[1]


def test_unusable_and_duplicate_fonts_are_skipped(tmp_path):
    good = settings().fonts[0].path
    data = pathlib.Path(good).read_bytes()
    (tmp_path / "copy.ttf").write_bytes(data)
    (tmp_path / "copy2.ttf").write_bytes(data)
    (tmp_path / "broken.ttf").write_bytes(data[:1000])
    fonts = find_fonts((str(tmp_path),), packages=())
    assert len([f for f in fonts if f.path.startswith(str(tmp_path))]) == 1
    assert not any("cmex" in f.path or "cmsy" in f.path for f in find_fonts(packages=("matplotlib",)))
    assert covers(good, "abc") and not covers(good, "\U0001f9ff")
    with pytest.raises(UserError, match="no such folder"):
        find_fonts((str(tmp_path / "none"),))
    with pytest.raises(UserError, match=r"no font family.*pip install '\.\[render\]'"):
        select([Font("x", "DejaVu Sans", "")], "heldout" if not Font("x", "DejaVu Sans", "").heldout else "train")


def test_a_machine_without_fonts_gets_the_command_to_install_the_render_extra(monkeypatch):
    monkeypatch.setattr(font_module, "SYSTEM_FOLDERS", ())
    with pytest.raises(UserError, match=r"no usable font: pip install '\.\[render\]'"):
        find_fonts(packages=())


def test_fonts_whose_letters_join_are_script(monkeypatch):
    """No script is installed everywhere: underscores, which join in every font, stand for its letters."""
    path = settings().fonts[0].path
    assert not font_module._is_script(path)
    monkeypatch.setattr(font_module, "SCRIPT_SAMPLE", "_________")
    assert font_module._is_script(path)


def test_font_that_fails_only_at_layout_size_is_no_script(tmp_path, monkeypatch):
    """FreeType rejects some damaged glyphs at one size and draws them at another."""
    path = tmp_path / "damaged.ttf"
    path.write_bytes(pathlib.Path(settings().fonts[0].path).read_bytes())
    load = font_module.ImageFont.truetype

    def fail_at_layout_size(name, size):
        if size == font_module.GLYPH_PX and name == str(path):
            raise OSError("invalid outline")
        return load(name, size)

    monkeypatch.setattr(font_module.ImageFont, "truetype", fail_at_layout_size)
    assert [f.is_script for f in find_fonts((str(tmp_path),), packages=()) if f.path == str(path)] == [False]


def test_font_does_not_cover_characters_that_it_draws_as_a_box():
    """The box for missing characters differs from the glyph of NUL in some fonts."""
    for font in settings().fonts:
        assert not covers(font.path, "\U0010fffe")
