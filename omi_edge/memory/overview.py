"""Title and overview: what a conversation was about, in its own words."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

from omi_edge.domain import Memory, Task
from omi_edge.memory.categories import TOPIC_WORDS
from omi_edge.memory.clauses import Clause
from omi_edge.memory.embed import stem
from omi_edge.memory.names import Names
from omi_edge.memory.vocabulary import ALWAYS_CAPITAL, GROCERIES, PLACE_WORDS, STOP_WORDS

NEUTRAL_TITLE = "Conversation"
LONGEST_TITLE = 60
MOST_TOPICS = 3
MOST_SENTENCES = 3
FEWEST_WORDS = 4
"""A clause shorter than this says too little to stand alone."""
MOST_WORDS = 24
SUPPORT_BONUS = 0.6
"""Added for a clause that carries a task, a fact or a decision, on a scale where a word of the topic counts up to 1."""

_VERB_LIKE = frozenset(
    "call send buy bring meet need want plan decide decided agreed help read write eat play stay live lives like likes love speak speaks plays drive drives take takes "
    "works work travel pay order check book cancel wonderful expensive better warm small big free hours minutes nights "
    "weekend week month day days evening morning afternoon year years".split()
)
_DATE_WORDS = frozenset(ALWAYS_CAPITAL) - PLACE_WORDS
_SMALL_TALK = re.compile(r"(?:good (?:morning|evening|afternoon|night)|hello|hi|hey|thank you|thanks|how are you|very well|see you|"
                         r"goodbye|bye|you're welcome)\b")  # fmt: skip


def title_of(clauses: Sequence[Clause], names: Names) -> str:
    """Return up to three topics, most spoken of first: "Train to Boston, bank and dentist"; never empty."""
    tokens = [token for clause in clauses for token in clause.tokens]
    words = [token.word.removesuffix("'s") for token in tokens]
    scores: Counter[str] = Counter()
    for word in words:
        if word not in STOP_WORDS and word.isalpha() and len(word) > 2 and word not in _DATE_WORDS:
            scores[word] += 1
    weight = {word: count * _interest(word) for word, count in scores.items()}
    named = {token.word.removesuffix("'s") for index, token in enumerate(tokens) if names.at(tokens, index)}
    first_seen = {word: words.index(word) for word in weight}
    ranked = sorted((word for word in weight if word not in named), key=lambda w: (-weight[w], first_seen[w]))
    topics = _topics(ranked, words)
    if not topics:
        topics = sorted((word for word in named if word in weight), key=lambda w: (-weight[w], first_seen[w]))[:2]
    written = [_written(topic, names) for topic in topics]
    while written:
        title = written[0] if len(written) == 1 else ", ".join(written[:-1]) + " and " + written[-1]
        if len(title) <= LONGEST_TITLE:
            return title[:1].upper() + title[1:]
        written.pop()
    return NEUTRAL_TITLE


def _interest(word: str) -> float:
    if word in _VERB_LIKE:
        return 0.3
    if word in TOPIC_WORDS or word.removesuffix("s") in TOPIC_WORDS or word in PLACE_WORDS:
        return 2.0
    return 1.5 if word in GROCERIES else 0.8


def _topics(ranked: Sequence[str], words: Sequence[str]) -> list[str]:
    """Join what is said side by side ("chocolate cake", "train to boston") and leave out what says a topic twice."""
    pairs = Counter(itertools.pairwise(words))
    toward = Counter(
        (a, c) for a, b, c in zip(words, words[1:], words[2:], strict=False) if b == "to" and c in PLACE_WORDS
    )
    topics: list[str] = []
    used: set[str] = set()
    for word in ranked:
        if len(topics) == MOST_TOPICS or (topics and word in _VERB_LIKE):
            break
        if stem(word) in used:
            continue
        topic = word
        place = next((b for (a, b), _ in toward.most_common() if a == word), None)
        source = next((a for (a, b), _ in toward.most_common() if b == word and a in ranked), None)
        beside = next((pair for pair, count in pairs.most_common() if word in pair and set(pair) <= set(ranked)
                       and (count > 1 or (pair[0] in GROCERIES and pair[1] == word)) and pair[0] != pair[1]), None)  # fmt: skip
        if place and stem(place) not in used:
            topic = f"{word} to {place}"
        elif source and stem(source) not in used:
            topic = f"{source} to {word}"
        elif beside and not {stem(part) for part in beside} & used:
            topic = " ".join(beside)
        topics.append(topic)
        used |= {stem(part) for part in topic.split()}
    return topics


def _written(topic: str, names: Names) -> str:
    return " ".join(
        word.capitalize() if word in PLACE_WORDS or word in ALWAYS_CAPITAL else word for word in topic.split()
    )


def overview_of(clauses: Sequence[Clause], names: Names, tasks: Sequence[Task], facts: Sequence[Memory]) -> str:
    """Return the one to three clauses that say most, in order, each with its speaker where the name is known."""
    found = [*(task.evidence for task in tasks), *(fact.evidence for fact in facts)]
    support = Counter(piece.utterance_id for evidence in found for piece in evidence)
    weight = Counter(stem(token.word) for clause in clauses for token in clause.tokens if token.word not in STOP_WORDS)
    most = max(weight.values(), default=1)
    scored = []
    for number, clause in enumerate(clauses):
        body = [token.word for token in clause.tokens[clause.lead :]]
        content = {stem(word) for word in body if word not in STOP_WORDS}
        if len(body) < FEWEST_WORDS or not content or clause.question or _SMALL_TALK.match(clause.text):
            continue
        score = sum(weight[word] for word in content) / most / len(body) ** 0.5
        score += SUPPORT_BONUS * bool(support[clause.utterance.id])
        scored.append((score, number))
    chosen = sorted(number for _, number in sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:MOST_SENTENCES])
    if not chosen:
        chosen = [number for number, clause in enumerate(clauses) if clause.tokens][:1]
    return " ".join(_sentence(clauses[number], names) for number in chosen)


def _sentence(clause: Clause, names: Names) -> str:
    tokens = (clause.tokens[clause.lead :] or clause.tokens)[:MOST_WORDS]
    speaker = names.speaker(clause.utterance)
    text = names.polish(tokens)
    cut = len(clause.tokens) - clause.lead > MOST_WORDS
    return (f"{speaker}: " if speaker else "") + text + ("…" if cut else "?" if clause.question else ".")
