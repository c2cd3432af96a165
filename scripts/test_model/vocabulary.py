"""The words that the test model knows, the sentences made of them, and the tokens they are written in."""

from __future__ import annotations

import random

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NAMES = tuple("Anna Bob David Emma Frank Helen Kevin Laura Oscar Peter Sarah Victor".split())
DAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
NUMBERS = tuple("one two three four five six seven eight nine ten eleven twelve twenty".split())
VERBS = tuple("call buy send meet bring find open close paint carry wash visit".split())
THINGS = tuple("books tickets boxes letters bottles flowers oranges chairs windows coffee keys shoes".split())
COLOURS = tuple("red green blue yellow black white".split())
PLACES = tuple("office kitchen garden station market school hotel".split())
SMALL = tuple("the and will please on in at to from with before after today tomorrow not".split())
WORDS = NAMES + DAYS + NUMBERS + VERBS + THINGS + COLOURS + PLACES + SMALL

KINDS = {
    "NAME": NAMES, "DAY": DAYS, "NUMBER": NUMBERS, "VERB": VERBS, "THING": THINGS, "COLOUR": COLOURS, "PLACE": PLACES,
    "WHEN": ("today", "tomorrow"), "WHERE": ("in", "at", "to", "from"), "ORDER": ("before", "after", "on"),
}  # fmt: skip
TEMPLATES = (
    "NAME will VERB NUMBER COLOUR THING",
    "please VERB the COLOUR THING WHEN",
    "NAME and NAME will meet on DAY",
    "VERB NUMBER THING WHERE the PLACE",
    "NAME will not VERB NAME ORDER DAY",
    "VERB the THING and VERB the THING",
    "meet NAME at the PLACE at NUMBER",
    "DAY at NUMBER with NAME and NAME",
)
TEMPLATE_SHARE = 0.35
"""The rest are words in random order, or the decoder learns sentences instead of listening."""
LENGTHS = (8, 14, 18, 18, 14, 12, 9, 7)
"""How often a random sentence has one word, two, ... eight."""

SPECIAL = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>", *(f"<|{n / 50:.2f}|>" for n in range(1501)),
)  # fmt: skip
SPACE = "Ġ"
"""How a byte-level vocabulary writes the blank before a word."""


def sentence(draw: random.Random) -> tuple[str, ...]:
    """Draw one to eight words."""
    if draw.random() < TEMPLATE_SHARE:
        return tuple(draw.choice(KINDS.get(part, (part,))) for part in draw.choice(TEMPLATES).split())
    (length,) = draw.choices(range(1, len(LENGTHS) + 1), LENGTHS)
    words: list[str] = []
    while len(words) < length:
        word = draw.choice(WORDS)
        if words[-1:] != [word]:
            words.append(word)
    return tuple(words)


def tokenizer() -> Tokenizer:
    """Return one token a word, one a byte for all else, then Whisper's own tokens in Whisper's order."""
    # faster-whisper encodes some punctuation when it starts and wants tokens for it: hence the bytes
    bytes_ = [(letter, -20.0) for letter in sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.Unigram(bytes_ + [(SPACE + word, -1.0) for word in WORDS], unk_id=0, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return made
