"""Words that Whisper should expect, as the text that it is given before each window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

SPECIAL = "<|"
"""How Whisper's special tokens begin; its tokenizer would take a word like that for one of them."""


def fitting(words: Sequence[str], tokens: Callable[[str], int], most: int) -> str:
    """Return as many of ``words``, from the first on, as have at most ``most`` tokens together.

    faster-whisper cuts off what is more, in the middle of a word. It puts a space before the text.
    """
    taken: list[str] = []
    count = 0
    for word in words:
        if SPECIAL in word:
            continue
        count += tokens(f" {word},")
        if count > most + 1:  # the last comma is not written
            break
        taken.append(word)
    while taken and tokens(" " + ", ".join(taken)) > most:
        taken.pop()
    return ", ".join(taken)
