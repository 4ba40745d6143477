"""The word prior: corrects ambiguous readings and leaves clear ones unchanged."""

import numpy as np
import pytest

import textscanner
from textscanner.charset import ALPHANUMERIC, FIRST_CHARACTER_ID, Charset
from textscanner.data.images import decode
from textscanner.inference import vocabulary
from textscanner.inference.vocabulary import Vocabulary, load_vocabulary

CASED = Charset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", case_sensitive=True)

POSITIONS = 12

THRESHOLD = 0.5


def network_output(charset, *positions, presence=None):
    """Arguments of `correct`: per position a dict of characters and their scores."""
    scores = np.full((POSITIONS, charset.num_classes), 1e-4, np.float32)
    scores[:, 0] = 0
    for k, shares in enumerate(positions):
        for character, share in shares.items():
            scores[k, charset.characters.index(character) + FIRST_CHARACTER_ID] = share
    presences = np.full(POSITIONS, 0.02, np.float32)
    presences[: len(positions)] = 0.95
    for k, value in (presence or {}).items():
        presences[k] = value
    return scores, presences, THRESHOLD


def text(charset, correction):
    return charset.decode(np.append(correction.ids, 0))


def sure(word):
    return [{c: 0.98} for c in word]


@pytest.fixture(scope="module")
def english():
    return load_vocabulary("en", ALPHANUMERIC)


def test_an_ambiguous_character_is_corrected_to_the_likelier_word(english):
    ambiguous = [*sure("ho"), {"i": 0.6, "t": 0.35}, *sure("el")]
    correction = english.correct(*network_output(ALPHANUMERIC, *ambiguous))
    assert text(ALPHANUMERIC, correction) == "hotel"
    assert correction.confidences[2] == pytest.approx(0.35, abs=0.03)
    assert 0.5 < correction.word_confidence < 1


@pytest.mark.parametrize("word", ["hotel", "hoiel", "x7qk92", "1998", "qzv", "a"])
def test_confident_readings_are_unchanged(english, word):
    correction = english.correct(*network_output(ALPHANUMERIC, *sure(word)))
    assert text(ALPHANUMERIC, correction) == word
    assert correction.word_confidence > 0.5


def test_a_weak_last_letter_is_added_or_dropped(english):
    cut = network_output(ALPHANUMERIC, *sure("quality"), presence={6: 0.45})
    assert text(ALPHANUMERIC, english.correct(*cut)) == "quality"
    spurious = network_output(ALPHANUMERIC, *sure("market"), {"q": 0.3, "z": 0.3}, presence={6: 0.55})
    assert text(ALPHANUMERIC, english.correct(*spurious)) == "market"


def test_the_correction_is_the_maximum_over_all_candidates():
    """Skipping words that cannot win changes nothing: against all of them, one by one."""
    rng = np.random.default_rng(3)
    letters = "abcd"
    charset = Charset(letters)
    listed = {"".join(rng.choice(list(letters), n)): float(rng.exponential()) for n in (2, 3, 4, 5) for _ in range(40)}
    words = Vocabulary(listed, charset)
    total = sum(listed.values())
    changed = 0
    for _ in range(200):
        scores = rng.dirichlet([0.4] * 4, POSITIONS).astype(np.float32)
        scores = np.pad(scores, [(0, 0), (FIRST_CHARACTER_ID, 0)])
        presence = np.append(rng.uniform(0.3, 1, 5), np.zeros(POSITIONS - 5)).astype(np.float32)
        presence[0] = 0.9
        length = int(np.argmin(np.append(presence >= THRESHOLD, False)))
        image = np.log(0.99 * scores + 0.01 / 4)
        clipped = np.clip(presence.astype(np.float64), 1e-3, 1 - 1e-3)

        def value(ids, image=image, clipped=clipped):
            here, after = clipped[: len(ids)], clipped[len(ids)]
            return image[np.arange(len(ids)), ids].sum() + np.log(here).sum() + np.log(1 - after)

        read = np.argmax(image[:length], -1)
        texts = {charset.decode(read): value(read)}
        for word, count in listed.items():
            if abs(len(word) - length) <= 1:
                gain = vocabulary.WEIGHT * (np.log(count / total) + 6 + 3 * len(word))
                texts[word] = value(charset.encode(word)) + gain
        correction = words.correct(scores, presence, THRESHOLD)
        assert text(charset, correction) == max(texts, key=texts.get)
        changed += text(charset, correction) != charset.decode(read)
    assert 20 < changed < 180


def test_the_case_of_the_network_is_kept():
    words = Vocabulary({"hotel": 1.0, "Hostel": 0.1}, CASED)
    upper_case = [{"H": 0.9}, {"O": 0.9}, {"I": 0.5, "T": 0.3, "t": 0.1}, {"E": 0.9}, {"L": 0.9}]
    assert text(CASED, words.correct(*network_output(CASED, *upper_case))) == "HOTEL"


def test_words_outside_the_charset_are_not_listed(tmp_path):
    assert len(Vocabulary({"déjà": 1.0, "vu": 1.0, "don't": 2.0, "": 1.0}, ALPHANUMERIC)) == 2
    assert len(load_vocabulary("en+de", Charset("äöüß"))) < len(load_vocabulary("de", Charset("abcdefgäöüß")))
    listed = tmp_path / "words.txt"
    listed.write_text("Zyxel\nqoppa\t20\n")
    own = load_vocabulary(str(listed), ALPHANUMERIC)
    ambiguous = [*sure("qop"), {"f": 0.5, "p": 0.4}, *sure("a")]
    assert text(ALPHANUMERIC, own.correct(*network_output(ALPHANUMERIC, *ambiguous))) == "qoppa"
    assert load_vocabulary("none", ALPHANUMERIC) is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("one\ttwo", "line 1: 'two' is not a positive count"),
        ("a\nb\t-1", "line 2"),
        ("日本", "no word in the network's characters"),
    ],
)
def test_errors_of_a_word_list_name_the_line(tmp_path, content, complaint):
    listed = tmp_path / "words.txt"
    listed.write_text(content)
    with pytest.raises(ValueError, match=complaint):
        load_vocabulary(str(listed), ALPHANUMERIC)


@pytest.mark.parametrize("name", ["xx", "missing.txt", "en+", ""])
def test_an_unknown_vocabulary_is_refused(name):
    with pytest.raises(ValueError, match=r"^vocabulary is"):
        load_vocabulary(name, ALPHANUMERIC)


def test_readings_change_only_with_a_vocabulary(overfitted):
    images = [decode(record.image, record.source) for record in overfitted.words]
    with pytest.raises(ValueError, match="languages out of"):
        textscanner.load(overfitted.checkpoint, "klingon")
    plain = textscanner.load(overfitted.checkpoint).read(images)
    helped = textscanner.load(overfitted.checkpoint, "en").read(images)
    assert [r.text for r in plain] == [record.text.lower() for record in overfitted.words]
    assert sum(a.text == b.text for a, b in zip(plain, helped, strict=True)) > 0.9 * len(images)
    for a, b in zip(plain, helped, strict=True):
        assert [(c.x_px, c.y_px) for c in a.characters[:2]] == [(c.x_px, c.y_px) for c in b.characters[:2]]
        assert 0 < b.confidence <= 1
