"""The word prior: corrects ambiguous readings and leaves clear ones unchanged."""

import numpy as np
import pytest

import textscanner
from textscanner.charset import ALPHANUMERIC, FIRST_CHARACTER_ID, PRINTABLE_ASCII, Charset
from textscanner.data.images import decode
from textscanner.inference.vocabulary import Vocabulary, load_vocabulary
from textscanner.inference.word_table import LOG_UNLISTED, LOG_UNLISTED_CHARACTER, WEIGHT

CASED = Charset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", case_sensitive=True)

POSITIONS = 12

THRESHOLD = 0.5


def network_output(charset, *positions, presence=None, threshold=THRESHOLD):
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
    return scores, presences, threshold


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


def at_odds(factor, threshold):
    """The presence whose odds are `factor` times those of the threshold."""
    odds = factor * threshold / (1 - threshold)
    return odds / (1 + odds)


@pytest.mark.parametrize("threshold", [0.15, 0.3, 0.5, 0.65])
def test_a_weak_last_letter_is_added_or_dropped(english, threshold):
    cut = {"presence": {6: at_odds(0.8, threshold)}, "threshold": threshold}
    cut = network_output(ALPHANUMERIC, *sure("quality"), **cut)
    assert text(ALPHANUMERIC, english.correct(*cut)) == "quality"
    spurious = {"presence": {6: at_odds(1.2, threshold)}, "threshold": threshold}
    spurious = network_output(ALPHANUMERIC, *sure("market"), {"q": 0.3, "z": 0.3}, **spurious)
    assert text(ALPHANUMERIC, english.correct(*spurious)) == "market"


@pytest.mark.parametrize(("threshold", "expected"), [(0.1, "cats"), (0.2, "cats"), (0.4, "cat"), (0.65, "cat")])
def test_length_is_judged_by_presence_against_the_threshold(threshold, expected):
    """Presence 0.3 of the last letter; both words have the same prior."""
    words = Vocabulary(
        {"cat": np.exp(LOG_UNLISTED_CHARACTER), "cats": np.exp(2 * LOG_UNLISTED_CHARACTER)}, ALPHANUMERIC
    )
    output = network_output(ALPHANUMERIC, *sure("cats"), presence={3: 0.3}, threshold=threshold)
    assert text(ALPHANUMERIC, words.correct(*output)) == expected


def log_posterior(word, gain, scores, presence, threshold):
    """As documented, written out for a single text; `scores` are log probabilities [N, C]."""
    odds = presence / (1 - presence) * (1 - threshold) / threshold
    here, ends = np.log(odds / (1 + odds)), np.log(1 / (1 + odds))
    n = len(word)
    return scores[np.arange(n), word].sum() + here[:n].sum() + ends[n] + gain


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.65])
def test_the_correction_is_the_maximum_over_all_candidates(threshold):
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
        calibrated = np.append(rng.uniform(0.3, 0.99, 5), np.full(POSITIONS - 5, 0.01))
        calibrated[0] = 0.9
        presence = at_odds(calibrated / (1 - calibrated), threshold).astype(np.float32)
        length = int(np.argmin(np.append(presence >= threshold, False)))
        image = np.log(0.99 * scores + 0.01 / 4)
        read = np.argmax(image[:length], -1)
        texts = {charset.decode(read): log_posterior(read, 0.0, image, presence.astype(np.float64), threshold)}
        for word, count in listed.items():
            if abs(len(word) - length) <= 1:
                gain = WEIGHT * (np.log(count / total) - LOG_UNLISTED - LOG_UNLISTED_CHARACTER * len(word))
                ids = charset.encode(word)
                texts[word] = log_posterior(ids, gain, image, presence.astype(np.float64), threshold)
        correction = words.correct(scores, presence, threshold)
        assert text(charset, correction) == max(texts, key=texts.get)
        changed += text(charset, correction) != charset.decode(read)
    assert 20 < changed < 180


PUNCTUATED = Vocabulary({"hotel": 1.0, "hot": 1.0, "don't": 1.0, "c++": 0.2, "it": 1.0}, PRINTABLE_ASCII)


def correct(*positions, **options):
    return text(PRINTABLE_ASCII, PUNCTUATED.correct(*network_output(PRINTABLE_ASCII, *positions, **options)))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.65])
@pytest.mark.parametrize(("before", "after"), [("", ""), ("", "!"), ('"', '",'), ("(", ""), ("", "...")])
def test_punctuation_around_a_word_does_not_prevent_its_correction(before, after, threshold):
    ambiguous = [*sure("HO"), {"I": 0.6, "T": 0.3}, *sure("EL")]
    reading = correct(*sure(before), *ambiguous, *sure(after), threshold=threshold)
    assert reading == f"{before}HOTEL{after}"


@pytest.mark.parametrize("word", ["!", "?!", "hotel!", "$7.50", "x7-q", "C++", "'Don't'", "a@b.de", "HOTEL!"])
def test_clear_readings_with_punctuation_are_unchanged(word):
    assert correct(*sure(word)) == word


def test_a_weak_last_letter_after_punctuation_is_added():
    assert correct(*sure("(hotel"), presence={5: 0.45}) == "(hotel"
    assert correct(*sure("hote"), {"!": 0.5, "l": 0.4}) == "hotel"
    assert correct(*sure("hote"), {"!": 0.99}) == "hote!"


def test_the_case_of_the_network_is_kept():
    words = Vocabulary({"hotel": 1.0, "Hostel": 0.1}, CASED)
    upper_case = [{"H": 0.9}, {"O": 0.9}, {"I": 0.5, "T": 0.3, "t": 0.1}, {"E": 0.9}, {"L": 0.9}]
    assert text(CASED, words.correct(*network_output(CASED, *upper_case))) == "HOTEL"


@pytest.mark.parametrize("word", ["hotel", "HOTEL", "Hotel", "hOtEl"])
def test_the_case_of_a_word_that_is_read_correctly_is_kept(word):
    assert correct(*sure(word)) == correct(*sure(f"{word}!"))[:-1] == word


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([*sure("HO"), {"I": 0.5}, *sure("EL")], "HOTEL"),
        ([*sure("ho"), {"I": 0.5}, *sure("el")], "hotel"),  # I and l have the same shape
        ([*sure("Ho"), {"i": 0.5}, *sure("el")], "Hotel"),
        ([{"N": 0.5}, *sure("otel")], "Hotel"),
        ([{"n": 0.5}, *sure("otel")], "hotel"),
        ([{"n": 0.5}, *sure("OTEL")], "HOTEL"),
        ([*sure("H"), {"0": 0.5, "O": 0.03, "o": 0.03}, *sure("TEL")], "HOTEL"),
        ([*sure("h"), {"0": 0.5, "O": 0.03, "o": 0.03}, *sure("tel")], "hotel"),
        ([*sure("ho"), {"i": 0.5, "T": 0.4}, *sure("el")], "hoTel"),  # the image shows it
    ],
)
def test_a_corrected_letter_gets_the_case_of_its_position_and_of_the_other_letters(positions, expected):
    assert correct(*positions) == expected
    assert correct(*sure("("), *positions, *sure(")")) == f"({expected})"


def test_all_probabilities_of_a_letter_count_in_both_cases():
    assert correct(*sure("ho"), {"l": 0.4, "T": 0.3, "t": 0.25}, *sure("el")) == "hotel"


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
