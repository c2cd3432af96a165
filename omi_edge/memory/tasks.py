"""Tasks: what somebody commanded, promised, asked for, has an appointment for or needs to buy.

Precision before recall: a clause must begin with one of a few forms, its verb must be one that people do for one another
or come with a date, and nothing conditional, quoted, negated, past or taken back counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

import msgspec

from omi_edge.domain import SECOND_US, Task, TaskOwner
from omi_edge.memory.clauses import Clause, Token, normal
from omi_edge.memory.dates import Due, find_due
from omi_edge.memory.embed import stem
from omi_edge.memory.names import Names
from omi_edge.memory.shopping import shopping_list
from omi_edge.memory.vocabulary import FEMALE_KIN, FEMALE_NAMES, MALE_KIN, MALE_NAMES, STOP_WORDS, WEEKDAYS

CONFIDENCE = {
    "explicit_command": 0.9,
    "clear_commitment": 0.8,
    "direct_request": 0.7,
    "appointment": 0.75,
    "inferred": 0.6,
}
"""Before the recogniser's own doubt is applied."""
CONTEXT_US = 60 * SECOND_US
"""How long a day that was named stays the one that "at three" may mean."""
SAME_SHARE = 0.75
"""Two descriptions that share this part of their stems say the same."""
LONGEST_WORDS = 18
"""A longer description is a run-on of the recogniser and is cut."""

_VERBS = (
    "send call phone ring email e-mail mail write text message buy bring book order pay prepare make bake cook finish "
    "fix repair schedule arrange organise organize reserve submit sign review upload share forward return renew cancel "
    "confirm contact invite register deliver collect complete draft print visit update clean wash mow paint install pick "
    "drop post postpone reschedule transfer translate backup back change replace charge water feed walk set follow tell ask "
    "talk speak check remind attend deposit apply download configure test deploy proofread cover measure pack give"
).split()
_NOT_DONE = frozenset(
    "be see have like love know think want need feel miss wait stay try guess bet rain snow say admit remember forget hope "
    "believe understand agree mind wonder mean regret seem become happen die live sleep dream just never not probably "
    "always maybe also only do go come get let keep hear look show take put use start stop help work run turn stick stand "
    "sit love enjoy survive manage handle explain notice end kill".split()
)
_DATED_DONE = frozenset("take get put show help work start run go come turn do keep look handle".split())
"""Verbs that are a task only with a date and an object."""
_IDIOMS = re.compile(
    r"(?:tell (?:you )?(?:what|something|the truth|a (?:secret|story|joke)|how|why|about)|give (?:you |it |that |me )?(?:that|"
    r"up|a (?:hand|hint|minute|second|try|break|shot|go|moment)|an example|in|it a)|make (?:sense|it\b(?! to)|love|sure you|fun|up|do|you|me |him |her )|"
    r"call (?:it|that|this|me (?:a |an |by )?[a-z]+$)|check (?:out|it out|this out)|pick (?:on|one)|back (?:off|down|up)$|"
    r"talk (?:about|later)|ask (?:you )?(?:something|a question|why|how|what|this|that|one)|speak (?:up|louder|slowly|for)|"
    r"pay (?:attention|for (?:it|that|this))$|walk (?:away|with)|follow (?:me|you|that|along)$|set (?:foot|aside)|change (?:my|your|the subject|that)|"
    r"share (?:a|my|this|the story|with you)|bring (?:it on|up)|write that down|text and|go ahead|come in|do (?:that|it|this|so)$|"
    r"return to (?:that|this)|drop dead|post about|order (?:the same|a |an )?(?:pizza|coffee|beer|salad)? ?now|cover (?:that|this)|get (?:it|back to work|up|dressed|used))"
)
_VERB = "|".join(sorted(_VERBS, key=len, reverse=True))
_SOFT = r"(?:just |also |then |definitely |certainly |gladly |quickly |personally |still |try to |try and |make sure to |go and |be sure to )*"

_COMMITMENT = re.compile(
    rf"(?:(?:i|we) (?:will|shall)|(?:i|we)'ll|i(?: a|')m (?:definitely )?(?:going to|gonna)|we(?: a|')re (?:going to|gonna)|"
    rf"i promise (?:you )?(?:that )?(?:i'll|i will|to)|i can (?=[a-z]+ (?:you|it|that|them) .*(?:tomorrow|tonight|day\b))|let me) {_SOFT}(?P<verb>[a-z-]+)\b"
)
_NEED = re.compile(
    r"(?:i|we)(?: really| still| both)? (?:have to|need to|must|have got to|gotta)|(?:i|we)'ve got to|i've to|i(?:'d| had) better"
)
_REQUEST = re.compile(
    rf"(?:(?:can|could|would|will) you (?:please |maybe |also |kindly |just )*|please (?:also |just )*|"
    rf"(?:i need|i want|i would like|i'd like) you to )(?P<verb>{_VERB}|take|get|put|remember to|remember|make sure to)\b"
)
_WITH_PLEASE = re.compile(rf"(?P<verb>{_VERB})\b (?=.* please$)")
_OBLIGED = re.compile(rf"you (?:still )?(?:need|have) to (?P<verb>{_VERB})\b")
_FORGET = re.compile(
    r"(?:please )?(?:(?:don't|do not) (?:let me )?forget|remember|make sure|be sure) to (?P<verb>[a-z-]+)\b"
)
_ON_LIST = re.compile(
    r"(?:please )?(?:add|put) (?P<items>.+?) (?:to|on|onto) (?:the|my|our) (?P<list>shopping|grocery|groceries|to do|todo|task)?"
    r" ?lists?\b"
)
_APPOINTMENT = re.compile(
    r"(?:(?:i|we)(?:'ve| have)?(?: got| have)? (?:an? |the |our |my |another )?|there(?: is|'s) (?:an? |the |our |my )?|"
    r"(?:the|my|our|your|a|an) )?(?P<what>(?:(?!tomorrow|today|tonight|next|on)[a-z]+(?:'s)? ){0,2}?(?:appointment|meeting|reservation|interview|exam|check-up|checkup|"
    r"conference call|phone call|video call|lesson|rehearsal|viewing|flight|surgery|deadline|presentation))\b"
)
_MEETING = re.compile(
    r"(?:let us|let's|lets|we(?: a|')re going to|we will|we'll|shall we) (?P<what>(?:meet|have (?:a )?(?:lunch|dinner|coffee|breakfast|"
    r"meeting|drink|call)|get together|talk|speak|catch up|go to)\b.*)"
)
_EVENT_VERB = re.compile(r" ?(?:is|starts|begins|will be|leaves|takes place|has been moved|was moved to)\b")
_PAST = re.compile(r"\b(?:was|were|had|went|yesterday|last (?:week|month|year|night|monday|tuesday|wednesday|thursday|friday|"
                   r"saturday|sunday)|ago|already|missed|cancelled|canceled|used to)\b")  # fmt: skip
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|would have|could have|should have|might|never|supposed to|pretend)\b"
)
_URGENT = re.compile(r"\b(?:urgent|urgently|as soon as possible|asap|immediately|right away|very important|at once)\b")
_TAIL = re.compile(
    r"(?:,? ?\b(?:as well|too|also|please|okay|ok|right|then|thanks|thank you|for sure|at least|again please|by|on|at|until|"
    r"before|around|about|and|for|from|or|so|but|the|a|of|with|to|latest|later|urgently|immediately|asap|"
    r"as soon as possible|right away|at once|sharp|i promise|great|good|fine|wonderful|perfect|yes|no|when|while|that|because|if you can|if possible|in)\b)+$"
)
_CUT = re.compile(r"\b(?:not (?:on|at|this|next|before)|because|but|so that|so (?:i|you|we|he|she|they)|which|otherwise|since|and (?:then|i|we|you|he|she|they|it|that|this|"
                  r"maybe|please|remind|also)|or (?:i|we|you)|thank you|thanks|okay|and what|what do you)\b")  # fmt: skip
_TOLD = re.compile(
    r"\b(?:tell|remind|inform|warn|ask|write|text|message|email|let) (?!me\b)(?:\w+ ){1,3}(?:(?P<that>that|know)|about)\b"
)
_WHEN_WORDS = frozenset("morning afternoon evening night week weekend month day noon".split()) | frozenset(WEEKDAYS)
_GIVES = frozenset("send bring give show buy get write email e-mail mail tell make order book forward text pass print read lend pay "
                   "cook bake deliver share prepare".split())  # fmt: skip
_NEEDS_OBJECT = frozenset(_VERBS) - frozenset("cook bake clean register follow apply pay sign finish".split())
_TRIGGER_DENIED = re.compile(
    r"\b(?:don't|do not|didn't|did not|never|not|to|would|always|used to|he|she|they|who|does|doesn't|that|it|said|say)$"
)


class Found(msgspec.Struct, frozen=True):
    """A part of a clause that says a task."""

    kind: str
    first: int
    """Index of the first word of the description among the clause's tokens."""
    last: int
    said_from: int = 0
    """Where the saying begins, for the evidence."""
    trigger: str | None = None
    description: str | None = None
    """When the words themselves will not do."""
    inferred: bool = False
    addressee_does: bool = False


def tasks_of(clauses: Sequence[Clause], names: Names, zone: ZoneInfo, triggers: Sequence[str]) -> tuple[Task, ...]:
    """Return the tasks in order of speech, each said once."""
    tasks: list[Task] = []
    context: tuple[int, date] | None = None
    for number, clause in enumerate(clauses):
        moment_us = clause.utterance.start_us
        day = context[1] if context and moment_us - context[0] <= CONTEXT_US else None
        spoken = _find(clause, triggers)
        named = find_due(clause.text, moment_us, zone)
        if spoken is not None:
            due = find_due(clause.text, moment_us, zone, day)
            task = _task(clause, clauses[max(0, number - 6) : number], spoken, due, names)
            if task is not None:
                tasks.append(task)
        if named is not None and named.day is not None and named.certain:
            context = moment_us, named.day
    return tuple(_fold(tasks))


def _find(clause: Clause, triggers: Sequence[str]) -> Found | None:
    explicit = _explicit(clause, triggers)
    if clause.doubtful or (explicit is None and not clause.body):
        return None
    if explicit is not None:
        return explicit
    if _HEDGE.search(clause.text):
        return None
    return (
        _on_list(clause) or _forget(clause) or _meeting(clause) or _commitment(clause) or _request(clause) or _need(clause)
        or _appointment(clause)
    )  # fmt: skip


def _explicit(clause: Clause, triggers: Sequence[str]) -> Found | None:
    text = clause.text
    for phrase in triggers:
        spoken = r" ".join(_homophones(word) for word in normal(phrase).split())
        for found in re.finditer(rf"(?:^|(?<= )){spoken}(?= |$)", text):
            before = text[: found.start()].strip()
            if _TRIGGER_DENIED.search(before) or (before.endswith("you") and not re.search(
                r"\b(?:can|could|would|will) you$", before
            )):  # fmt: skip
                continue
            rest = re.match(r" ?(?:that says|that i|called|to|that|is|about)?(?: to)?(?: |$)", text[found.end() :])
            first = clause.index_at(found.end() + (rest.end() if rest else 1))
            if normal(phrase).endswith((" to", " that")):
                first = clause.index_at(found.end() + 1)
            if first < len(clause.tokens):
                return Found("explicit_command", first, len(clause.tokens), clause.index_at(found.start()), phrase)
    return None


def _homophones(word: str) -> str:
    return r"(?:to|two|too)" if word == "to" else re.escape(word)


def _on_list(clause: Clause) -> Found | None:
    found = _ON_LIST.match(clause.body)
    if found is None:
        return None
    first, last = clause.body_index_at(found.start("items")), clause.body_index_at(found.end("items"))
    if (found["list"] or "") in ("to do", "todo", "task"):
        return Found("explicit_command", first, last, clause.lead)
    listed = shopping_list(clause.tokens[first : last + 1])
    return Found("explicit_command", first, last + 1, clause.lead, description=listed or "Buy " + found["items"])


def _forget(clause: Clause) -> Found | None:
    found = _FORGET.match(clause.body)
    if found is None or clause.question or _IDIOMS.match(clause.body[found.start("verb") :]):
        return None
    return Found("direct_request", clause.body_index_at(found.start("verb")), len(clause.tokens), clause.lead,
                 addressee_does="let me" not in found[0])  # fmt: skip


def _commitment(clause: Clause) -> Found | None:
    found = _COMMITMENT.match(clause.body)
    if found is None or clause.question:
        return None
    verb, rest = found["verb"], clause.body[found.start("verb") :]
    if _PAST.search(rest) or not _worth_doing(verb, rest) or (found[0].startswith("let me") and not _says_when(rest)):
        return None
    first = clause.body_index_at(found.start("verb"))
    listed = shopping_list(clause.tokens[first + 1 :]) if verb in ("buy", "get", "pick") else None
    return Found("clear_commitment", first, len(clause.tokens), clause.lead, description=listed)


def _worth_doing(verb: str, rest: str) -> bool:
    if _IDIOMS.match(rest) or rest.startswith("see you"):
        return False
    if verb in _VERBS:
        return True
    if verb == "see":
        return bool(re.match(r"see (?:the|my|a|dr|doctor)\b", rest)) and _says_when(rest)
    if verb in _DATED_DONE:
        return _says_when(rest) and len(_content(rest)) >= 2
    return verb not in _NOT_DONE and verb not in STOP_WORDS and _says_when(rest) and len(_content(rest)) >= 2


def _request(clause: Clause) -> Found | None:
    found = _REQUEST.match(clause.body) or _WITH_PLEASE.match(clause.body)
    if found is None and _says_when(clause.body) and not clause.question:
        found = _OBLIGED.match(clause.body)
    if found is None:
        return None
    rest = clause.body[found.start("verb") :]
    verb = found["verb"].split()[0]
    if _IDIOMS.match(rest) or re.match(r"(?:tell|ask|remind) (?:me|us|you)(?: (?:what|how|where|when|why|who|if|about|which|"
                                       r"more|again|the time|your)|$)", rest):  # fmt: skip
        return None
    if verb in ("take", "get", "put") and not _says_when(rest):
        return None
    if _PAST.search(rest):
        return None
    first = clause.body_index_at(found.start("verb"))
    if found["verb"] in ("remember to", "make sure to"):
        first = clause.body_index_at(found.end("verb") + 1)
    listed = shopping_list(clause.tokens[first + 1 :]) if verb in ("buy", "get", "pick") else None
    return Found("direct_request", first, len(clause.tokens), clause.lead, description=listed, addressee_does=True)


def _need(clause: Clause) -> Found | None:
    found = _NEED.match(clause.body)
    if found is None:
        plain = re.match(r"(?:we|i)(?:(?: still| also)? need| are out of|'re out of| am out of|'m out of) (?!to\b|you\b)",
                         clause.body)  # fmt: skip
        if plain is None or clause.question:
            return None
        first = clause.body_index_at(plain.end())
        listed = shopping_list(clause.tokens[first:], strict=True)
        return (
            Found("inferred", first, len(clause.tokens), clause.lead, description=listed, inferred=True)
            if listed
            else None
        )
    verb = re.match(rf" {_SOFT}(?P<verb>[a-z-]+)", clause.body[found.end() :])
    if verb is None or clause.question or _PAST.search(clause.body):
        return None
    at = found.end() + verb.start("verb")
    rest = clause.body[at:]
    if not _worth_doing(verb["verb"], rest) and not re.match(r"get (?:some |more )?\w+", rest):
        return None
    first = clause.body_index_at(at)
    buys = verb["verb"] in ("buy", "get", "pick")
    listed = shopping_list(clause.tokens[first + 1 :], strict=verb["verb"] != "buy") if buys else None
    if verb["verb"] == "get" and listed is None and not _says_when(rest):
        return None
    return Found("inferred", first, len(clause.tokens), clause.lead, description=listed, inferred=listed is None)


def _appointment(clause: Clause) -> Found | None:
    found = _APPOINTMENT.match(clause.body)
    if found is None or clause.question or _PAST.search(clause.text) or not _says_when(clause.body):
        return None
    rest = clause.body[found.end() :]
    if re.match(
        r" (?:about|room|notes|minutes|point|request|went|we|you|would|should|could|can|might|has|have)\b", rest
    ):
        return None
    if not re.match(r"$| (?:with|at|on|is|starts|begins|will be|leaves|takes|tomorrow|today|tonight|next|this|in|for|to|and|from|about|"
                    r"by|the|every)\b| (?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)\b", rest):  # fmt: skip
        return None
    first = clause.body_index_at(found.start("what"))
    return Found("appointment", first, len(clause.tokens), clause.lead)


def _meeting(clause: Clause) -> Found | None:
    found = _MEETING.match(clause.body)
    if found is None or not _says_when(clause.body) or (clause.question and not clause.body.startswith("shall we")):
        return None
    if clause.question:
        return None
    return Found("appointment", clause.body_index_at(found.start("what")), len(clause.tokens), clause.lead)


def _says_when(text: str) -> bool:
    due = find_due(text, _ANY_MOMENT_US, _UTC)
    return due is not None and due.due_us is not None


_UTC = ZoneInfo("UTC")
_ANY_MOMENT_US = round(datetime(2024, 1, 3, 12, tzinfo=_UTC).timestamp() * 1_000_000)
"""Whether words are a date hardly depends on the moment; a fixed one keeps the answer fixed."""


def _task(clause: Clause, before: Sequence[Clause], found: Found, due: Due | None, names: Names) -> Task | None:
    owner, owner_name = _owner(clause, found, names)
    if found.kind == "explicit_command" and owner is TaskOwner.UNKNOWN:
        owner = TaskOwner.USER
    if due is not None and (told := _TOLD.search(clause.text)) and due.spans and due.spans[0][0] > told.start():
        # "remind tom about the party on saturday": the day belongs to what is told
        due = None if told["that"] else msgspec.structs.replace(due, spans=(), certain=False)
    description = found.description or _describe(clause, before, found, due, names)
    if description is None:
        return None
    if found.description and due is not None and due.due_us is None:
        due = None
    return Task(
        description=description,
        owner=owner,
        owner_name=owner_name,
        due_us=due.due_us if due else None,
        due_has_time=bool(due and due.has_time),
        due_certain=due.certain if due else True,
        priority="high" if _URGENT.search(clause.text) else "medium",
        kind="inferred" if found.kind == "appointment" else found.kind,
        trigger=found.trigger,
        confidence=_confidence(clause, found),
        evidence=(clause.evidence(found.said_from),),
    )


def _owner(clause: Clause, found: Found, names: Names) -> tuple[TaskOwner, str | None]:
    if found.addressee_does:
        if names.addressee_is_wearer(clause.utterance):
            return TaskOwner.USER, names.addressee(clause.utterance)
        name = names.addressee(clause.utterance)
        return (TaskOwner.OTHER, name) if name or names.is_wearer(clause.utterance) else (TaskOwner.UNKNOWN, None)
    name = names.speaker(clause.utterance)
    if name is None:
        return TaskOwner.UNKNOWN, None
    return (TaskOwner.USER if names.is_wearer(clause.utterance) else TaskOwner.OTHER), name


def _confidence(clause: Clause, found: Found) -> float:
    heard = [word.confidence for word in clause.utterance.words]
    doubt = 0.8 + 0.2 * sum(heard) / len(heard) if heard else 1.0
    return round(
        CONFIDENCE["inferred" if found.inferred else found.kind if found.kind != "inferred" else "appointment"] * doubt,
        3,
    )


def _describe(clause: Clause, before: Sequence[Clause], found: Found, due: Due | None, names: Names) -> str | None:
    gone = {
        index
        for start, end in (due.spans if due else ())
        for index in range(clause.index_at(start), clause.index_at(end - 1) + 1)
    }
    last = _end(clause, found)
    kept = [clause.tokens[index] for index in range(found.first, last) if index not in gone]
    kept = _without_tail(kept[: 2 * LONGEST_WORDS])
    if found.kind == "appointment":
        kept = _event(kept)
    kept = _addressed(kept, clause, found, before, names)
    if not kept or not _enough(kept, found):
        return None
    return names.polish(kept[:LONGEST_WORDS])


def _end(clause: Clause, found: Found) -> int:
    start = clause.offsets[found.first]
    cut = _CUT.search(clause.text, start + 1)
    ends = [found.last]
    if cut:
        ends.append(clause.index_at(cut.start()))
    ends += [index + 1 for index in range(found.first, found.last) if clause.tokens[index].stop]
    return max(found.first, min(ends))


def _without_tail(tokens: list[Token]) -> list[Token]:
    text = " ".join(token.word for token in tokens)
    tail = _TAIL.search(text)
    kept = text[: tail.start()].split() if tail else text.split()
    # the tail may only take words that no meaning hangs on: "look it up", "come in" keep theirs as they end in others
    return [*tokens[: len(kept)]]


def _event(tokens: list[Token]) -> list[Token]:
    """ "my flight is" → "flight": what an appointment is, without where its verb stood."""
    text = " ".join(token.word for token in tokens)
    verb = _EVENT_VERB.search(text)
    if verb:
        tokens = tokens[: len(text[: verb.start()].split())] + tokens[len(text[: verb.end()].split()) :]
    return _without_tail(tokens)


def _addressed(
    tokens: list[Token], clause: Clause, found: Found, before: Sequence[Clause], names: Names
) -> list[Token]:
    """Put names where "you", "me", "her" and "him" stood, or leave them out where that reads well."""
    made: list[Token] = []
    for index, token in enumerate(tokens):
        following = tokens[index + 1].word if index + 1 < len(tokens) else ""
        verb = tokens[0].word
        if token.word in ("you", "me") and index > 0:
            name = names.addressee(clause.utterance) if token.word == "you" else names.speaker(clause.utterance)
            mine = token.word == "me" and not found.addressee_does
            if mine:
                made.append(token)
            elif name:
                made += [msgspec.structs.replace(token, raw=word, word=word.lower()) for word in name.split()]
            elif (
                index == 1
                and verb in _GIVES
                and following
                and following not in ("at", "to", "on", "about", "up", "when", "if")
            ):
                continue
            elif index and tokens[index - 1].word in ("to", "for", "with") and index + 1 == len(tokens):
                made.pop()
            else:
                made += [msgspec.structs.replace(token, raw=word, word=word) for word in ("the", "other", "speaker")]
        elif token.word in ("her", "him") and (not following or following in STOP_WORDS):
            known = _antecedent(token.word, clause, before, names)
            made += known or [token]
        else:
            made.append(token)
    return made


def _antecedent(pronoun: str, clause: Clause, before: Sequence[Clause], names: Names) -> list[Token] | None:
    """Return the one person named shortly before whom a pronoun can mean."""
    given, kin = (FEMALE_NAMES, FEMALE_KIN) if pronoun == "her" else (MALE_NAMES, MALE_KIN)
    found: dict[str, list[Token]] = {}
    for earlier in before:
        for index, token in enumerate(earlier.tokens):
            if token.word in given and names.at(earlier.tokens, index):
                found = {key: value for key, value in found.items() if not key.startswith("my ")}
                found[token.word] = [msgspec.structs.replace(token, comma=False, stop=False)]
            elif token.word in kin and index and earlier.tokens[index - 1].word == "my":
                if earlier.utterance.speaker != clause.utterance.speaker or clause.utterance.speaker is None:
                    return None  # whose sister it is would be told wrongly
                found["my " + token.word] = [
                    msgspec.structs.replace(part, comma=False, stop=False)
                    for part in earlier.tokens[index - 1 : index + 1]
                ]
    return next(iter(found.values())) if len(found) == 1 else None


def _enough(tokens: list[Token], found: Found) -> bool:
    words = [token.word for token in tokens]
    content = _content(" ".join(words))
    if found.trigger:
        return bool(content)
    if found.kind == "appointment":
        return bool(content) or words[0] == "meet"
    if words[0] in _NEEDS_OBJECT and len(words) < 2:
        return False
    meant = [word for word in words[1:] if word not in STOP_WORDS and word not in _WHEN_WORDS]
    return bool(meant) or bool({"her", "him", "them", "back", "speaker"} & set(words[1:]) and words[0] in ("call", "phone", "text", "email", "visit", "invite", "contact", "ring"))  # fmt: skip


def _content(text: str) -> list[str]:
    return [word for word in text.split() if word not in STOP_WORDS]


def _fold(tasks: Sequence[Task]) -> list[Task]:
    """Join tasks that say the same, unless they are due at different times."""
    folded: list[Task] = []
    for task in tasks:
        for number, earlier in enumerate(folded):
            if _same(earlier, task):
                folded[number] = _joined(earlier, task)
                break
        else:
            folded.append(task)
    return folded


def _same(one: Task, other: Task) -> bool:
    both_sure = (one.due_has_time and other.due_has_time) or (one.due_certain and other.due_certain)
    if both_sure and one.due_us is not None and other.due_us is not None and one.due_us != other.due_us:
        return False
    first, second = _key(one.description), _key(other.description)
    return len(first & second) >= SAME_SHARE * max(1, len(first | second))


def _key(description: str) -> set[str]:
    words = re.findall(r"[\w']+", description.casefold())
    return {stem(word) for word in words if word not in STOP_WORDS} or set(words)


def _joined(one: Task, other: Task) -> Task:
    better, lesser = (one, other) if one.confidence >= other.confidence else (other, one)
    dated = better if better.due_us is not None and (better.due_certain or not lesser.due_certain) else lesser
    if dated.due_us is None:
        dated = better
    return msgspec.structs.replace(
        better,
        due_us=dated.due_us,
        due_has_time=dated.due_has_time,
        due_certain=dated.due_certain,
        evidence=(*one.evidence, *other.evidence),
    )
