"""Six words for a digest."""

from __future__ import annotations

import hashlib

from appliance.protocol.words import COUNT, WORDS, six_words


def test_the_words_never_change() -> None:
    """Two releases must say the same words for one register."""
    assert hashlib.sha256(" ".join(WORDS).encode()).hexdigest() == (
        "779e56f180cdce1fcdb775a47f3176c35f58255b94edca755247a33220a2c1a1"
    )
    assert six_words(hashlib.sha256(b"register").hexdigest()) == (
        "cello",
        "atlas",
        "south",
        "lake",
        "lobster",
        "hammer",
    )


def test_every_word_is_there_once() -> None:
    """A word twice would make two digests sound alike."""
    assert len(set(WORDS)) == len(WORDS)
    assert len(WORDS) ** COUNT > 2**55


def test_another_digest_has_other_words() -> None:
    """That is what they are compared for."""
    digests = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(1000)]

    assert len({six_words(digest) for digest in digests}) == 1000
