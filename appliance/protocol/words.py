"""Six words for a digest: what two people can compare on the telephone.

The words are our own choice: short, of everyday life, and hard to take for one another. They never change, for two
releases must say the same words for one digest; a test holds that.
"""

from __future__ import annotations

from pathlib import Path

COUNT = 6
WORDS = tuple(Path(__file__).with_name("words.txt").read_text("ascii").split())


def six_words(digest: str) -> tuple[str, ...]:
    """Six words that stand for a SHA-256 digest (hex): 55 bits of it, beside the signature that the text must carry."""
    number = int(digest, 16)
    words = []
    for _ in range(COUNT):
        number, place = divmod(number, len(WORDS))
        words.append(WORDS[place])
    return tuple(words)
