"""Memories: short facts in the third person about somebody with a name, and decisions.

The subject is a name that was heard, or the speaker when it is known by name; never "Speaker 1". What is asked, guessed,
conditional or negated away is no fact.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import msgspec

from omi_edge.domain import Memory
from omi_edge.memory.clauses import Clause, Token
from omi_edge.memory.dates import find_due
from omi_edge.memory.names import Names
from omi_edge.memory.vocabulary import GROCERIES, KIN, MONTHS, PLACES, STOP_WORDS

_UTC = ZoneInfo("UTC")
STATED, INFERRED = 0.8, 0.65
"""Confidence of what was said outright, and of what an agreement or a possessive implies."""
MOST_OBJECT_WORDS = 8
"""A longer object is a run-on of the recogniser."""
EXCLUSIVE = frozenset({"home", "birthday", "age"})
"""Categories in which the later statement of a dialogue replaces the earlier one."""

_PROFESSION = (
    r"(?:nurse|doctor|dentist|teacher|lawyer|engineer|student|programmer|developer|designer|architect|carpenter|plumber|"
    r"electrician|photographer|journalist|writer|actor|actress|musician|singer|painter|artist|cook|chef|waiter|waitress|"
    r"baker|farmer|gardener|driver|pilot|manager|accountant|banker|consultant|scientist|professor|psychologist|therapist|"
    r"physicist|chemist|biologist|pharmacist|veterinarian|vet|surgeon|policeman|firefighter|soldier|judge|notary|"
    r"vegetarian|vegan|widow|widower|pensioner|salesman|secretary|mechanic|librarian|translator|midwife|paramedic)"
)
_ADVERB = r"(?:(?:now|still|also|really|always|only|currently|actually|just|both) )?"


class _Pattern(msgspec.Struct, frozen=True):
    category: str
    third: str
    """As said of somebody: "lives in"."""
    first: str
    """As said of oneself: "live in"; empty when nobody says it so."""
    written: str
    """In the third person, with a blank before the object."""
    needs: str = ""
    """What the object must match."""


_PATTERNS = (
    _Pattern("home", r"lives? in", r"live in", "lives in", "place"),
    _Pattern("home", r"is living in", r"(?:am|'m) living in", "lives in", "place"),
    _Pattern("home", r"(?:has )?moved to", r"(?:have |'ve )?moved to", "moved to", "place"),
    _Pattern("home", r"lives (?:near|next to|close to|at)", r"live (?:near|next to|close to|at)", "lives near"),
    _Pattern("origin", r"(?:is|comes) (?:originally )?from", r"(?:am|'m|come) (?:originally )?from", "is from", "place"),
    _Pattern("origin", r"was born (?:in|on)", r"was born (?:in|on)", ""),
    _Pattern("work", r"works? (?:for|at|as|in)", r"work (?:for|at|as|in)", ""),
    _Pattern("work", rf"is an? (?=(?:[a-z]+ )?{_PROFESSION}\b)", rf"(?:am|'m) an? (?=(?:[a-z]+ )?{_PROFESSION}\b)", ""),
    _Pattern("health", r"is allergic to", r"(?:am|'m) allergic to", "is allergic to"),
    _Pattern("health", r"(?:does not|doesn't) (?:eat|drink)", r"(?:do not|don't) (?:eat|drink)", ""),
    _Pattern("preference", r"is (?=(?:a )?(?:vegetarian|vegan)\b)", r"(?:am|'m) (?=(?:a )?(?:vegetarian|vegan)\b)", "is"),
    _Pattern("preference", r"(?:really )?(?:likes|loves|hates|prefers|enjoys)", r"(?:really )?(?:love|hate|prefer|enjoy|like)", ""),
    _Pattern("preference", r"(?:does not|doesn't) (?:like)", r"(?:do not|don't) (?:like)", ""),
    _Pattern("skill", r"(?:speaks|plays|teaches|studies)", r"(?:speak|play|teach|study)", "", "noun"),
    _Pattern("family", r"is married to", r"(?:am|'m) married to", "is married to"),
    _Pattern("family", rf"has (?=(?:a|an|one|two|three|four|five|six) (?:[a-z]+ )?(?:{'|'.join(sorted(KIN))}|children|kids|"
                       r"(?:son|daughter|brother|sister|dog|cat|twin)s|twins|horse|parrot|grandchildren)\b)",
             rf"have (?=(?:a|an|one|two|three|four|five|six) (?:[a-z]+ )?(?:{'|'.join(sorted(KIN - {'appointment'}))}|children|"
             r"kids|(?:son|daughter|brother|sister|dog|cat|twin)s|twins|horse|parrot|grandchildren)\b)", "has"),
    _Pattern("age", r"is (?=[a-z0-9 -]+ years old\b)", r"(?:am|'m) (?=[a-z0-9 -]+ years old\b)", "is"),
    _Pattern("possession", r"(?:owns|drives)", r"(?:own|drive)", "", "noun"),
)  # fmt: skip


def _verb(form: str) -> re.Pattern[str]:
    """Compile a form with the blank after it; one that looks ahead has its own."""
    return re.compile(_ADVERB + form + ("" if "(?=" in form else " "))


_COMPILED = tuple((pattern, _verb(pattern.third), _verb(pattern.first)) for pattern in _PATTERNS)
_FIRST_TO_THIRD = {
    "live": "lives", "work": "works", "love": "loves", "hate": "hates", "prefer": "prefers", "enjoy": "enjoys", "like":
    "likes", "speak": "speaks", "play": "plays", "teach": "teaches", "study": "studies", "own": "owns", "drive": "drives",
    "am": "is", "'m": "is", "do": "does", "don't": "doesn't", "have": "has", "come": "comes",
}  # fmt: skip

_OBJECT_END = re.compile(
    r"\b(?:because|but|so|if|when|while|although|though|since|unless|until|which|that is why|and (?:he|she|it|they|we|i|you|my|his|"
    r"her|our|their|so|then|now|the|that)|he|she|they|we|i|you|what|where|how|do you|can you|isn't|right|okay|yes|by the way|"
    r"my (?:sister|brother|wife|husband|son|daughter|mother|father|friend))\b"
)
_OBJECT_TAIL = re.compile(r"(?: (?:now|too|also|as well|very much|a lot|so much|anymore|any more|right now|today|at the moment|these days|and|or|"
                          r"the|a|of|to|with|for|in|on|you know|i think|again|already))+$")  # fmt: skip
_EMPTY_OBJECT = re.compile(r"(?:it|that|this|these|those|you|him|her|them|me|us|one|what|how|when|where|there|here|so|too|"
                           r"to (?:be|do|have|go|know|say|think|see|get|hear|talk)\b.*|the (?:idea|fact|way|sound)\b.*|your\b.*|my\b.*|being\b.*|"
                           r"(?:it|that|this|you|when|how|the one)\b.*)$")  # fmt: skip
_DOUBT = re.compile(
    r"\b(?:if|maybe|perhaps|probably|possibly|might|may be|think|thinks|thought|guess|suppose|wonder|heard|said|says|say|told|"
    r"would|could|should|does|did|do you|is it|whether|wish|hope|pretend|imagine|never|nobody|supposed|seems|apparently)$|"
    r"\b(?:if|maybe|perhaps|probably|i think|i guess|i thought|i heard|he said|she said|they said|do you think|whether|wonder|"
    r"suppose|imagine|pretend|not sure)\b"
)
_BIRTHDAY = re.compile(r"birthday is (?=\S)")
_KIN_IS = re.compile(rf"is my (?P<kin>(?:older |younger |little |big |best |new |old )?(?:{'|'.join(sorted(KIN))}))\b")

_DECIDED = re.compile(
    r"(?:we|we've|we have)(?: have| both| all| finally| just| now)? (?:decided|agreed)(?: (?:that|on|to go with|to|not to)\b)?"
)
_DECISION_IS = re.compile(
    r"(?:the|our) decision is (?:to |that )?|it(?: is|'s) decided (?:that |then )?|we(?: a|')re going with "
)
_LETS = re.compile(
    r"(?:let us|let's|lets) (?=(?:take|use|choose|buy|book|rent|hire|postpone|cancel|move|invite|order|paint|pick|hold|keep|sell|"
    r"switch|stay (?:in|at|with)|travel|fly|drive|start with|launch|ship)\b)"
)
_NOTHING_DECIDED = re.compile(
    r"(?:yet|anything|nothing|what|how|if|whether|when|where|who|it|that|this)?$|(?:yet|anything|nothing|what|how|if|whether)\b"
)


def facts_of(clauses: Sequence[Clause], names: Names) -> tuple[Memory, ...]:
    """Return the facts in order of speech, each once; a later home or birthday replaces the earlier."""
    facts: list[Memory] = []
    for number, clause in enumerate(clauses):
        if clause.doubtful or clause.question or not clause.tokens:
            continue
        following = clauses[number + 1] if number + 1 < len(clauses) else None
        facts += _decision(clause, following, names)
        facts += _about_named(clause, names)
        facts += _about_speaker(clause, names)
    return tuple(_fold(facts))


def _about_named(clause: Clause, names: Names) -> list[Memory]:
    """Find "anna lives in boston", "my brother robert works for the bank", "peter's birthday is …"."""
    facts = []
    index = 0
    while index < len(clause.tokens):
        length = names.at(clause.tokens, index)
        subject_tokens = clause.tokens[index : index + length]
        after = index + length
        index = max(after, index + 1)
        if not length or after >= len(clause.tokens) or _DOUBT.search(_before(clause, after - length)):
            continue
        if _asks(clause, after - length):
            continue
        subject = names.written(subject_tokens)
        owner = subject_tokens[-1].word.endswith(("'s", "s'"))
        kin = _kin_before(clause, after - length, names, subject)
        if kin is not None:
            facts.append(kin)
        rest = clause.text[clause.offsets[after] :]
        fact = _possessed(clause, after, subject, names) if owner else _predicate(clause, after, rest, subject, names)
        if fact is not None:
            facts.append(fact)
    return facts


def _asks(clause: Clause, subject_at: int) -> bool:
    """Say whether the subject follows the verb, as in "where does anna live", or a question word."""
    if subject_at == 0:
        return False
    before = clause.tokens[subject_at - 1].word
    return before in (
        "is",
        "was",
        "does",
        "did",
        "has",
        "can",
        "will",
        "do",
        "are",
        "am",
        "to",
        "with",
        "for",
        "or",
        "not",
    ) or (
        clause.tokens[min(clause.lead, len(clause.tokens) - 1)].word
        in ("where", "what", "who", "when", "why", "how", "does", "is", "did")
    )


def _possessed(clause: Clause, after: int, owner: str, names: Names) -> Memory | None:
    """Read "anna's birthday is …" and "anna's sister lives in …"."""
    rest = clause.text[clause.offsets[after] :]
    birthday = _birthday(clause, after, rest, owner, names)
    if birthday is not None:
        return birthday
    if clause.tokens[after].word in KIN and after + 1 < len(clause.tokens):
        subject = f"{owner}'s {clause.tokens[after].word}"
        return _predicate(clause, after + 1, clause.text[clause.offsets[after + 1] :], subject, names)
    return None


def _birthday(clause: Clause, at: int, rest: str, owner: str, names: Names) -> Memory | None:
    found = _BIRTHDAY.match(rest)
    if found is None:
        return None
    first = clause.index_at(clause.offsets[at] + found.end())
    when = clause.text[clause.offsets[first] :]
    due = find_due(when, clause.utterance.start_us, _UTC)
    if due is None or due.day is None or not due.spans or re.match(r"today|tomorrow|next|this|soon", when):
        return None
    last = clause.index_at(clause.offsets[first] + due.spans[0][1] - 1) + 1
    said = " ".join(
        word.capitalize() if word in MONTHS else word
        for word in names.polish(clause.tokens[first:last], sentence=False).split()
    )
    return _memory(f"{owner}'s birthday is {said}", owner, "birthday", STATED, clause, max(0, at - 1), last)


def _predicate(clause: Clause, at: int, rest: str, subject: str, names: Names) -> Memory | None:
    for pattern, third, _ in _COMPILED:
        found = third.match(rest)
        if found is not None:
            return _stated(clause, at, found, pattern, subject, names, said=found[0].strip())
    kin = _KIN_IS.match(rest)
    speaker = names.speaker(clause.utterance)
    if kin is not None and speaker is not None:
        last = clause.index_at(clause.offsets[at] + kin.end() - 1) + 1
        return _memory(f"{subject} is {speaker}'s {kin['kin']}", subject, "family", STATED, clause, at - 1, last)
    return None


def _stated(
    clause: Clause, at: int, found: re.Match[str], pattern: _Pattern, subject: str, names: Names, said: str
) -> Memory | None:
    first = clause.index_at(clause.offsets[at] + found.end())
    tokens = _object(clause, first, names)
    if not tokens or not _fits(tokens, pattern, names):
        return None
    written = pattern.written or re.sub(
        r"^(?:now|still|also|really|always|only|currently|actually|just|both) ", "", said
    )
    content = f"{subject} {written} {names.polish(tokens, sentence=False)}"
    return _memory(content, subject, pattern.category, STATED, clause, max(0, at - 1), first + len(tokens))


def _object(clause: Clause, first: int, names: Names) -> list[Token]:
    tokens = list(clause.tokens[first:])
    for index, token in enumerate(tokens):
        if token.word == "and" and index + 1 < len(tokens) and (length := names.at(tokens, index + 1)):
            rest = " ".join(later.word for later in tokens[index + 1 + length :])
            if any(third.match(rest) for _, third, _ in _COMPILED):  # "… and martin speaks spanish"
                tokens = tokens[:index]
                break
        if token.stop:
            tokens = tokens[: index + 1]
            break
    text = " ".join(token.word for token in tokens)
    end = _OBJECT_END.search(text)
    text = text[: end.start()].strip() if end else text
    tail = _OBJECT_TAIL.search(" " + text)
    text = (" " + text)[: tail.start()].strip() if tail else text
    words = len(text.split())
    if not words or words > MOST_OBJECT_WORDS or _EMPTY_OBJECT.match(text):
        return []
    return [*tokens[: words - 1], msgspec.structs.replace(tokens[words - 1], comma=False)]


def _fits(tokens: list[Token], pattern: _Pattern, names: Names) -> bool:
    words = [token.word for token in tokens]
    if all(word in STOP_WORDS for word in words):
        return False
    if pattern.needs == "place":
        known = {" ".join(words[:n]) for n in (1, 2, 3)} & PLACES
        if known:
            del tokens[len(max(known, key=len).split()) :]
            return True
        unknown = tokens[0].raw[:1].isupper() or words[0] in ("a", "the") or len(words) == 1
        return unknown and words[0] not in GROCERIES and words[0] not in ("fact", "love", "peace", "hope", "fear")
    if pattern.needs == "noun":
        return words[0] not in ("with", "to", "about", "for", "a", "on", "in", "me", "us", "it") or words[:1] == ["a"]
    return True


def _kin_before(clause: Clause, at: int, names: Names, subject: str) -> Memory | None:
    """Read "my brother robert" of a speaker whose name is known."""
    speaker = names.speaker(clause.utterance)
    if speaker is None or at < 2 or clause.tokens[at - 2].word != "my" or clause.tokens[at - 1].word not in KIN:
        return None
    kin = clause.tokens[at - 1].word
    return _memory(f"{subject} is {speaker}'s {kin}", subject, "family", INFERRED, clause, at - 2, at + 1)


def _about_speaker(clause: Clause, names: Names) -> list[Memory]:
    """Find "i live in boston", "my sister lives in boston", "my birthday is …" of a speaker known by name."""
    speaker = names.speaker(clause.utterance)
    if speaker is None or not clause.body or _DOUBT.search(clause.body.split(" like ")[0][:20]):
        return []
    words = [token.word for token in clause.tokens]
    at = clause.lead
    if words[at] == "my" and at + 1 < len(words):
        rest = clause.text[clause.offsets[at + 1] :]
        birthday = _birthday(clause, at + 1, rest, speaker, names)
        if birthday is not None:
            return [birthday]
        named = at + 2 < len(words) and names.at(clause.tokens, at + 2)
        if words[at + 1] in KIN and at + 2 < len(words) and not named:
            subject = f"{speaker}'s {words[at + 1]}"
            fact = _predicate(clause, at + 2, clause.text[clause.offsets[at + 2] :], subject, names)
            return [fact] if fact else []
        return []
    if words[at] == "i'm":
        rest, shift = "'m" + clause.text[clause.offsets[at] + 3 :], 1
    elif words[at] == "i've":
        rest, shift = "'ve" + clause.text[clause.offsets[at] + 4 :], 1
    elif words[at] == "i" and at + 1 < len(words):
        rest, shift = clause.text[clause.offsets[at + 1] :], 0
    else:
        return []
    for pattern, _, first in _COMPILED:
        found = first.match(rest)
        if found is None:
            continue
        said = re.sub(r"^(?:now|still|also|really|always|only|currently|actually|just|both) ", "", found[0].strip())
        verb, _, more = said.partition(" ")
        third = " ".join(part for part in (_FIRST_TO_THIRD.get(verb, verb), more) if part)
        # offsets of `rest` begin at the verb; a contraction holds it inside the pronoun's own word
        base = at if shift else at + 1
        offset = {"i'm": 1, "i've": 1}.get(words[at], 0)
        object_at = clause.index_at(clause.offsets[base] + offset + found.end())
        tokens = _object(clause, object_at, names)
        if tokens and _fits(tokens, pattern, names):
            content = f"{speaker} {pattern.written or third} {names.polish(tokens, sentence=False)}"
            return [_memory(content, speaker, pattern.category, STATED, clause, at, object_at + len(tokens))]
        return []
    return []


def _decision(clause: Clause, following: Clause | None, names: Names) -> list[Memory]:
    body = clause.body
    found = _DECIDED.match(body) or _DECISION_IS.match(body)
    confidence = STATED
    if found is None:
        found = _LETS.match(body)
        agreed = clause.agrees or (
            following is not None and following.agrees and following.utterance.id != clause.utterance.id
        )
        confidence = INFERRED
        if found is None or not agreed:
            return []
    first = clause.body_index_at(found.end() + (not found[0].endswith(" ")))
    tokens = _decided(clause, first)
    text = " ".join(token.word for token in tokens)
    if not tokens or all(token.word in STOP_WORDS for token in tokens) or _NOTHING_DECIDED.match(text):
        return []
    said = ("not to " if found[0].endswith("not to") else "") + names.polish(tokens, sentence=False)
    return [_memory(f"Decision: {said}", "Decision", "decision", confidence, clause, clause.lead, first + len(tokens))]


def _decided(clause: Clause, first: int) -> list[Token]:
    tokens = list(clause.tokens[first:])
    for index, token in enumerate(tokens):
        if token.stop:
            tokens = tokens[: index + 1]
            break
    text = " ".join(token.word for token in tokens)
    end = re.search(
        r"\b(?:because|but|and (?:i|we|you|he|she|they|it|then)|so (?:i|we|you)|okay|what|do you|can you)\b", text
    )
    words = len((text[: end.start()] if end else text).split())
    return tokens[:words] if words <= 2 * MOST_OBJECT_WORDS else []


def _before(clause: Clause, index: int) -> str:
    return clause.text[: clause.offsets[index]].strip()


def _memory(
    content: str, subject: str, category: str, confidence: float, clause: Clause, first: int, last: int
) -> Memory:
    heard = [word.confidence for word in clause.utterance.words]
    doubt = 0.8 + 0.2 * sum(heard) / len(heard) if heard else 1.0
    return Memory(content, subject, category, round(confidence * doubt, 3), (clause.evidence(first, last),))


def _fold(facts: Sequence[Memory]) -> list[Memory]:
    folded: dict[tuple[str, str], Memory] = {}
    for fact in facts:
        exclusive = fact.category in EXCLUSIVE
        key = (fact.subject.casefold(), fact.category) if exclusive else ("", fact.content.casefold())
        earlier = folded.get(key)
        if earlier is not None and earlier.content.casefold() == fact.content.casefold():
            folded[key] = msgspec.structs.replace(
                earlier,
                evidence=(*earlier.evidence, *fact.evidence),
                confidence=max(earlier.confidence, fact.confidence),
            )
        else:
            folded.pop(key, None)
            folded[key] = fact
    return list(folded.values())
