"""The texts that are rendered: dictionary words by flattened frequency, numbers and codes, in the cases of signs."""

from __future__ import annotations

import functools
import pathlib
import string

import numpy as np

from textscanner.errors import UserError
from textscanner.render.fonts import in_heldout_words

LANGUAGES = (  # code, number of words, probability
    ("en", 60_000, 0.8),
    ("de", 20_000, 0.05),
    ("fr", 20_000, 0.05),
    ("es", 20_000, 0.05),
    ("it", 20_000, 0.05),
)
MAX_LENGTH = 25  # characters
INSIDE, BEHIND, BEFORE = "-'&./", "!?.,:;*-", "$#@*"
AROUND = (("(", ")"), ('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("[", "]"), ("<", ">"))
PUNCTUATED = 0.16  # fraction of texts with punctuation
ADDRESSES, LONG_WORDS = 0.05, 0.06  # fractions of texts, where long texts are enabled
LONG = 10  # characters
TOP_LEVEL_DOMAINS = ("com", "com", "com", "org", "net", "de", "co.uk", "info", "fr", "it", "eu", "io")
MAILBOXES = ("info", "office", "contact", "mail", "sales", "hello")


@functools.lru_cache(maxsize=8)
def words(split: str, file: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The words of a split.

    Args:
      split: `train`, `heldout` or `all`.
      file: a text file with one word per line, all equally likely; None takes the word lists of wordfreq.

    Returns:
      The words, str [n], and their cumulative probabilities, float [n], ending at 1.

    Raises:
      UserError: the file cannot be read or contains no usable word.
    """
    if file is None:
        listed, weights = _frequent_words()
    else:
        try:
            listed = [line.strip() for line in pathlib.Path(file).read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"words is {file!r}: {error}; give a UTF-8 text file with one word per line") from error
        weights = [1.0] * len(listed)
    usable = [
        (word, weight)
        for word, weight in zip(listed, weights, strict=True)
        if 0 < len(word) <= MAX_LENGTH and (split == "all" or in_heldout_words(word) == (split == "heldout"))
    ]
    if not usable:
        raise UserError(
            f"words is {file!r}: no word of 1 to {MAX_LENGTH} characters belongs to split {split!r}; add words"
        )
    cumulative = np.cumsum([weight for _, weight in usable])
    return np.asarray([word for word, _ in usable]), cumulative / cumulative[-1]


def _frequent_words() -> tuple[list[str], list[float]]:
    import wordfreq

    weights: dict[str, float] = {}
    for language, count, probability in LANGUAGES:
        listed = [w for w in wordfreq.top_n_list(language, count) if w.isascii() and w.isalpha()]
        # The square root flattens the distribution: frequent words stay frequent, rare ones are still drawn.
        flat = np.sqrt([wordfreq.word_frequency(w, language) for w in listed]) + 2e-4
        for word, weight in zip(listed, probability * flat / flat.sum(), strict=True):
            weights[word] = weights.get(word, 0.0) + float(weight)
    return list(weights), list(weights.values())


def draw_text(
    rng: np.random.Generator, *, split: str, file: str | None = None, plain: bool = False, long: bool = False
) -> str:
    """A random text of 1 to MAX_LENGTH characters.

    Args:
      rng: source of randomness.
      split: see `words`.
      file: see `words`; its words are drawn as they are.
      plain: without punctuation.
      long: with addresses, telephone numbers and long words in fixed proportions; not with a file.
    """
    if long and file is None:
        kind = rng.random()
        if kind < ADDRESSES:
            return _address(rng, split)[:MAX_LENGTH]
        if kind < ADDRESSES + LONG_WORDS:
            return _long_word(rng, split)[:MAX_LENGTH]
    kind = rng.random()
    if file is not None or kind < 0.72:
        text = _word(rng, split, file)
        text = text if file else _case(text, rng)
    elif kind < 0.86:
        text = _number(rng, plain)
    else:
        text = _code(rng)
    if not plain and file is None and rng.random() < PUNCTUATED:
        text = _punctuate(text, rng)
    return text[:MAX_LENGTH]


def _word(rng: np.random.Generator, split: str, file: str | None = None) -> str:
    listed, cumulative = words(split, file)
    return str(listed[np.searchsorted(cumulative, rng.random())])


@functools.lru_cache(maxsize=4)
def _long_words(split: str) -> np.ndarray:
    """The dictionary's words of LONG characters and more, each once."""
    listed = words(split)[0]
    return np.asarray(listed[np.char.str_len(listed) >= LONG])


def _long_word(rng: np.random.Generator, split: str) -> str:
    """A long word, or two words written as one."""
    listed = _long_words(split)
    if len(listed) and rng.random() < 0.6:
        return _case(str(listed[rng.integers(len(listed))]), rng)
    first, second = _case(_word(rng, split), rng), _word(rng, split)
    second = second.upper() if first.isupper() else second
    return first + str(rng.choice(["", "", "-", "&", "/"])) + second


def _address(rng: np.random.Generator, split: str) -> str:
    """A web or email address, a social media name, or a telephone number, in lower case or capitals."""
    kind = rng.random()
    if kind < 0.2:
        return _telephone_number(rng)
    name, domain = _word(rng, split), TOP_LEVEL_DOMAINS[rng.integers(len(TOP_LEVEL_DOMAINS))]
    if kind < 0.5:
        address = f"www.{name}.{domain}"
    elif kind < 0.7:
        address = f"{name}.{domain}"
    elif kind < 0.75:
        address = f"http://{name}.{domain}"
    elif kind < 0.82:
        address = f"{name}.{domain}/{_word(rng, split)}"
    elif kind < 0.92:
        mailbox = MAILBOXES[rng.integers(len(MAILBOXES))] if rng.random() < 0.5 else _word(rng, split)
        address = f"{mailbox}@{name}.{domain}"
    else:
        address = f"{'@#'[rng.integers(2)]}{name}{rng.integers(100) if rng.random() < 0.3 else ''}"
    return address.upper() if rng.random() < 0.2 else address


def _telephone_number(rng: np.random.Generator) -> str:
    digits = "".join(rng.choice(list(string.digits), 10))
    kind = rng.integers(5)
    if kind == 0:
        return f"{digits[:3]}-{digits[3:6]}-{digits[6:]}"
    if kind == 1:
        return f"({digits[:3]}){digits[3:6]}-{digits[6:]}"
    if kind == 2:
        return f"+{rng.integers(1, 99)}{digits}"
    return f"0{digits[:3]}{'-/'[rng.integers(2)]}{digits[3:]}" if kind == 3 else f"{digits[:3]}-{digits[3:7]}"


def _case(word: str, rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.40:
        return word.upper()
    return word.capitalize() if kind < 0.70 else word


def _number(rng: np.random.Generator, plain: bool) -> str:
    kind = rng.random()
    if kind < 0.7 or plain:
        return "".join(rng.choice(list(string.digits), int(rng.integers(1, 7))))
    if kind < 0.8:
        return f"{rng.integers(0, 24)}:{rng.integers(0, 60):02d}"
    if kind < 0.9:
        return f"{rng.integers(0, 1000)}.{rng.integers(0, 100):02d}"
    return f"{rng.integers(1, 100)}{rng.choice(['%', 'th', 'km', 'm', 'am', 'pm', 'c', 'p'])}"


def _code(rng: np.random.Generator) -> str:
    length = min(int(rng.geometric(0.22)) + int(rng.integers(0, 3)), 14)
    alphabet = (string.ascii_uppercase + string.digits, string.ascii_uppercase, string.ascii_lowercase)
    return "".join(rng.choice(list(alphabet[rng.integers(3)]), length))


def _punctuate(text: str, rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.40:
        return text + BEHIND[rng.integers(len(BEHIND))]
    if kind < 0.52:
        return BEFORE[rng.integers(len(BEFORE))] + text
    if kind < 0.72:
        left, right = AROUND[rng.integers(len(AROUND))]
        side = rng.integers(3)  # a quotation may begin or end outside the crop
        return (left if side != 1 else "") + text + (right if side != 0 else "")
    if kind < 0.82:
        return text + ("'S" if text.isupper() else "'s")
    position = int(rng.integers(1, len(text) + 1))
    return text[:position] + INSIDE[rng.integers(len(INSIDE))] + text[position:]
