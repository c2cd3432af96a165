"""Utterances cut into clauses, with or without punctuation, and the doubts that hang on each.

A recogniser of the built-in tier gives neither capitals nor full stops, so a new clause is guessed where a subject meets
its auxiliary ("… then i will …"), where a request or a spoken trigger begins, and at pauses. What is quoted, conditional,
broadcast or taken back is marked here once, so that tasks and facts need not look for it again.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence

import msgspec

from omi_edge.domain import Evidence, Utterance
from omi_edge.memory.vocabulary import KIN

PAUSE_US = 500_000
"""Silence between two words that can end a clause; hesitation before a noun is excluded by HANGING and JOINING."""

_ABBREVIATIONS = frozenset({"dr.", "mr.", "mrs.", "ms.", "st.", "prof.", "a.m.", "p.m.", "e.g.", "i.e.", "vs.", "etc."})
_STRIP = '.,;:!?…"“”„«»()[]{}<>*_~`—–'
_QUOTES = '"“”„«»'

HANGING = frozenset(
    "a an the to of and or my your his her our their for with at in on by from very is are this i".split()
)
JOINING = frozenset(
    "to of and or for with at in on by from until before after than tomorrow today tonight next this monday tuesday "
    "wednesday thursday friday saturday sunday morning afternoon evening".split()
)
_SUBJECTS = frozenset("i you we they he she it there that who".split())
_CONTRACTED = re.compile(r"(?:i|you|we|they|he|she|it|there|that|who)'(?:ll|m|re|s|ve|d)")
_AUXILIARIES = frozenset(
    "am are is was were will would can could may might have has had do does did don't doesn't didn't should shouldn't "
    "must need think hope guess know want decided agreed promise promised won't can't gonna wanna shall never".split()
)
_SUBORDINATORS = frozenset(
    "if when whenever that what which who whom whose where why how whether because since while until before after as "
    "than unless though although think thought guess hope believe know knew say says said saying tell told tells "
    "promise sure afraid wish suppose maybe perhaps imagine like the a my do does did can could will would should may "
    "might am are is was were have has had remember forget asked ask think's probably doubt said,".split()
)
"""After one of these, subject and verb belong to what came before."""
_NO_TRIGGER_AFTER = frozenset(
    "to you please not don't say says said did didn't would does doesn't always never he she they who that it used".split()
)
_TELLING = frozenset("told tell tells telling promised asked asks ask".split())
_TOLD = frozenset("me you him her us them".split())
_STATING = frozenset(
    "live work like love hate prefer enjoy speak play lives works likes loves hates prefers enjoys speaks plays moved".split()
)
"""Verbs of facts, believed to begin a clause only after "and i", "and she"."""
_OPENERS = frozenset("okay ok yes yeah thanks hello but anyway".split())
_FILLERS = re.compile(
    r"(?:(?:okay|ok|oh|uh|um|er|hm|hmm|mm|yes|yeah|yep|no|well|so|and|then|but|good|great|fine|sure|right|alright|also|"
    r"now|hey|hello|hi|thanks|thank you|of course|all right|by the way|anyway|actually|perfect|wonderful|cool|listen|"
    r"look|you know|i mean|sorry|excuse me|again|oh no|oh yes|certainly|absolutely|deal|agreed|sounds good)\b,? ?)+"
)
_SPLIT_BEFORE = re.compile(
    r"(?:(?:can|could|would|will) you|let us|let's|lets|don't forget|do not forget|don't let me|do not let me|"
    r"thank you|of course|by the way|note to self|my name is|(?:what|how) (?:about|many|much)|(?:great|good) then|"
    r"(?:that|this|it) (?:sounds|takes|means|looks|costs|seems))\b"
)
_NEW_SUBJECT = re.compile(
    rf"(?:the|my|our|his|her|their) (?:[a-z'-]+ ){{1,2}}(?:is|are|was|were|will|would|can|could|has|should|must)\b|"
    rf"my (?:{'|'.join(sorted(KIN))}) (?:[a-z]+ )?(?:lives|works|likes|loves|hates|wants|needs|said|told|plays|moved|comes)\b"
)
"""A noun phrase that meets its verb: what was said before is over."""
_POLITE = re.compile(r"please (?:do not |don't )?(?:%s)\b" % "|".join(
    "send call bring buy book order pay check email mail text write pick get make remember tell ask schedule cancel "
    "print sign water feed clean wash fix collect reserve arrange confirm prepare forward forget return take put "
    "remind add invite contact update upload submit renew order".split()
))  # fmt: skip

_CONDITION = re.compile(
    r"(?:%s)? ?(?:even )?(?:if|unless|suppose|supposing|imagine|assuming|i wish|what if)\b" % _FILLERS.pattern
)
_BROADCAST = re.compile(
    r"\b(?:call now|order now|stay tuned|breaking news|terms and conditions|back to (?:you in )?the studio|subscribe to|"
    r"don't forget to subscribe|like and subscribe|after the (?:break|commercials?)|sponsored by|dear viewers|"
    r"our viewers|dear listeners|our listeners|reporting live|limited time offer|money back guarantee|"
    r"(?:in|on) (?:the|that|this|a) (?:movie|film|tv|television|show|series|radio|news|soap opera|commercial|song))\b"
)
_TAKEN_BACK = re.compile(
    r"\b(?:(?:just|only) (?:kidding|joking)|i(?: a|')m (?:just |only )?(?:kidding|joking)|never ?mind|"
    r"forget (?:it|about it|about that|i said)|that was a joke|scratch that)\b"
)


class Token(msgspec.Struct, frozen=True):
    """One word of an utterance."""

    raw: str
    """As heard, without the punctuation around it."""
    word: str
    """Lower-case, straight apostrophes."""
    start_us: int
    end_us: int
    comma: bool = False
    """A comma or colon follows."""
    stop: bool = False
    """A sentence ends here."""
    question: bool = False
    quoted: bool = False


class Clause(msgspec.Struct, frozen=True):
    """A run of tokens that says one thing."""

    utterance: Utterance
    tokens: tuple[Token, ...]
    text: str
    """The words joined by single spaces; offsets map back by ``index_at``."""
    offsets: tuple[int, ...]
    lead: int
    """How many words of ``tokens`` are fillers ("okay then …")."""
    question: bool = False
    doubtful: bool = False
    """Conditional, quoted, broadcast or taken back: nothing may be derived from it."""
    agrees: bool = False
    """Begins with a yes."""

    @property
    def body(self) -> str:
        """The text without leading fillers."""
        return self.text[self.offsets[self.lead] :] if self.lead < len(self.tokens) else ""

    @property
    def words(self) -> list[str]:
        """The words of all tokens."""
        return [token.word for token in self.tokens]

    def index_at(self, offset: int) -> int:
        """Return which token holds the character ``offset`` of ``text``; len(tokens) when past the end."""
        if offset >= len(self.text):
            return len(self.tokens)
        return bisect.bisect_right(self.offsets, offset) - 1

    def body_index_at(self, offset: int) -> int:
        """The same for an offset into ``body``."""
        return self.index_at(offset + self.offsets[self.lead])

    def evidence(self, first: int = 0, last: int | None = None) -> Evidence:
        """Return where the tokens from ``first`` up to, not including, ``last`` were said."""
        chosen = self.tokens[first:last] or self.tokens
        start_us = max(self.utterance.start_us, min(chosen[0].start_us, self.utterance.end_us))
        end_us = max(start_us, min(self.utterance.end_us, chosen[-1].end_us))
        return Evidence(self.utterance.id, start_us, end_us)


def clauses_of(utterances: Sequence[Utterance], triggers: Iterable[str] = ()) -> list[Clause]:
    """Return all clauses in order of speech; each trigger phrase begins a clause."""
    phrases = [normal(phrase).split() for phrase in triggers]
    made: list[list[Clause]] = []
    for utterance in utterances:
        tokens = tokens_of(utterance)
        spoken = " ".join(token.word for token in tokens)
        broadcast = bool(_BROADCAST.search(spoken))
        made.append(_cut(utterance, tokens, phrases, broadcast))
        if _TAKEN_BACK.search(spoken):
            _take_back(made, spoken)
    return [clause for group in made for clause in group]


def tokens_of(utterance: Utterance) -> list[Token]:
    """Split an utterance, with the time of each word where its words match its text, else that of the whole."""
    heard = [word for word in utterance.words if word.text.strip()]
    pieces = utterance.text.split()
    aligned = [word.text.strip() for word in heard] == pieces
    tokens = []
    inside = False
    for number, piece in enumerate(pieces):
        opens = piece[0] in _QUOTES
        inside = inside or opens
        raw = piece.strip(_STRIP)
        start_us, end_us = (
            (heard[number].start_us, heard[number].end_us) if aligned else (utterance.start_us, utterance.end_us)
        )
        if raw:
            abbreviated = piece.casefold().strip('"“”(),') in _ABBREVIATIONS
            tail = piece[len(piece.rstrip(_STRIP + "'’")) :]
            tokens.append(
                Token(
                    raw,
                    normal(raw),
                    start_us,
                    end_us,
                    comma=any(mark in tail for mark in ",:;"),
                    stop=not abbreviated and any(mark in tail for mark in ".!?…;"),
                    question="?" in tail,
                    quoted=inside,
                )
            )
        if inside and any(mark in piece[1:] for mark in _QUOTES):
            inside = False
    return tokens


def normal(text: str) -> str:
    """Return ``text`` as the rules compare it."""
    return " ".join(text.replace("’", "'").casefold().replace("a.m", "am").replace("p.m", "pm").split())


def _cut(utterance: Utterance, tokens: list[Token], phrases: list[list[str]], broadcast: bool) -> list[Clause]:
    words = [token.word for token in tokens]
    starts = [at for at in range(len(tokens)) if at == 0 or _begins(tokens, words, at, phrases)]
    clauses: list[Clause] = []
    conditional = False
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        clause = _clause(utterance, tokens[start:end])
        after_stop = start == 0 or tokens[start - 1].stop
        is_condition = bool(_CONDITION.match(clause.text)) or _trailing_condition(clause.text)
        doubtful = broadcast or is_condition or (conditional and not after_stop) or clause.tokens[0].quoted
        clauses.append(msgspec.structs.replace(clause, doubtful=doubtful))
        conditional = is_condition or (conditional and not after_stop)
    return clauses


def _clause(utterance: Utterance, tokens: Sequence[Token]) -> Clause:
    text = " ".join(token.word for token in tokens)
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(token.word) + 1
    fillers = _FILLERS.match(text)
    lead = bisect.bisect_left(offsets, fillers.end()) if fillers else 0
    if lead == len(tokens) and len(tokens) > 1 and tokens[-1].word not in ("okay", "yes", "yeah", "you"):
        lead = len(tokens)
    agrees = bool(re.match(r"(?:oh |well |and )?(?:yes|yeah|yep|okay|ok|sure|agreed|great|good|deal|perfect|fine|right|of "
                           r"course|all right|alright|sounds good|absolutely)\b", text))  # fmt: skip
    return Clause(utterance, tuple(tokens), text, tuple(offsets), lead, any(token.question for token in tokens),
                  agrees=agrees)  # fmt: skip


def _begins(tokens: list[Token], words: list[str], at: int, phrases: list[list[str]]) -> bool:
    before, word = tokens[at - 1], words[at]
    if any(words[max(0, at - len(phrase)) : at] == phrase for phrase in phrases):
        return False  # what follows a trigger is its content, whatever the punctuation
    if before.stop or before.quoted != tokens[at].quoted:
        return True
    if any(words[at : at + len(phrase)] == phrase for phrase in phrases):
        return before.word not in _NO_TRIGGER_AFTER
    if at > 1 and words[at - 2] in _TELLING and before.word in _TOLD:
        return False
    if tokens[at].start_us - before.end_us >= PAUSE_US and before.word not in HANGING and word not in JOINING:
        return True
    if word in _OPENERS and before.word not in ("nothing", "all", "say", "says", "said", "is", "was", "no"):
        return True
    ahead = " ".join(words[at : at + 4])
    if _SPLIT_BEFORE.match(ahead):
        return before.word not in _SUBORDINATORS and before.word not in ("please", "to", "and")
    if _POLITE.match(ahead):
        return before.word not in ("you", "could", "can", "would", "will", "to")
    if before.word not in _SUBORDINATORS and before.word not in HANGING and _NEW_SUBJECT.match(ahead):
        return True
    if word == "and" and at + 1 < len(words):
        after = " ".join(words[at + 1 : at + 6])
        if any(form.match(after) for form in (_SPLIT_BEFORE, _POLITE, _NEW_SUBJECT)) or _subject_and_verb(
            words, at + 1
        ):
            return True
        return words[at + 1] in _SUBJECTS and words[at + 2 : at + 3] != [] and words[at + 2] in _STATING
    return before.word not in _SUBORDINATORS and before.word != "and" and _subject_and_verb(words, at)


def _subject_and_verb(words: list[str], at: int) -> bool:
    if _CONTRACTED.fullmatch(words[at]):
        return True
    return words[at] in _SUBJECTS and at + 1 < len(words) and words[at + 1] in _AUXILIARIES


def _trailing_condition(text: str) -> bool:
    """Say whether an "if" makes the rest depend on something; "ask whether" and "see if" do not."""
    found = re.search(r"(?<!ask )(?<!see )(?<!check )(?<!out )(?<!know )(?<!asking )\b(?:if|unless|in case)\b", text)
    if not found:
        return False
    return not re.search(r"\b(?:ask|asking|see|check|find out|know|tell|wonder)\b(?: \w+){0,4} if\b", text)


def _take_back(made: list[list[Clause]], spoken: str) -> None:
    """Mark the clauses around a "just kidding" of the same utterance and the two before as doubtful."""
    for group in range(max(0, len(made) - 3), len(made)):
        made[group] = [msgspec.structs.replace(clause, doubtful=True) for clause in made[group]]
