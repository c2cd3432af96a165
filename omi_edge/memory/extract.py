"""The built-in extractor: rules that answer at once, prove each answer, and rather say nothing than guess."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from omi_edge.domain import Understanding
from omi_edge.engine import Dialogue
from omi_edge.errors import EnginePermanent
from omi_edge.memory.categories import EMOJI, OTHER, categorize
from omi_edge.memory.clauses import Clause, clauses_of
from omi_edge.memory.facts import facts_of
from omi_edge.memory.names import Names
from omi_edge.memory.overview import NEUTRAL_TITLE, overview_of, title_of
from omi_edge.memory.tasks import tasks_of
from omi_edge.memory.vocabulary import ENGLISH

ENGLISH_SHARE = 0.12
"""Share of ENGLISH words above which a text is taken for English: it has 0.35 to 0.6, other languages have few."""
FEW_WORDS = 8
"""Below this many words a share says nothing: one English word will do."""


class RulesExtractor:
    """Implements ``engine.Extractor`` for English; of another language it says nothing but a neutral title."""

    name = "rules 1"

    def extract(self, dialogue: Dialogue) -> Understanding:
        """See Extractor. Raises EnginePermanent for an unknown time zone."""
        try:
            zone = ZoneInfo(dialogue.time_zone)
        except (KeyError, ValueError, OSError) as error:
            raise EnginePermanent("the time zone of the dialogue is not known.") from error
        spoken = sorted((u for u in dialogue.utterances if u.text.strip()), key=lambda u: u.start_us)
        clauses = clauses_of(spoken, dialogue.trigger_phrases)
        if not _is_english(clauses):
            return Understanding(NEUTRAL_TITLE, "", OTHER, EMOJI[OTHER], (), (), self.name)
        names = Names(dialogue, clauses)
        tasks = tasks_of(clauses, names, zone, dialogue.trigger_phrases)
        facts = facts_of(clauses, names)
        category = categorize(token.word for clause in clauses for token in clause.tokens)
        return Understanding(
            title=title_of(clauses, names),
            overview=overview_of(clauses, names, tasks, facts),
            category=category,
            emoji=EMOJI[category],
            tasks=tasks,
            memories=facts,
            engine=self.name,
        )


def _is_english(clauses: Sequence[Clause]) -> bool:
    words = [token.word for clause in clauses for token in clause.tokens]
    hits = sum(word in ENGLISH for word in words)
    return hits > 0 if len(words) < FEW_WORDS else hits >= ENGLISH_SHARE * len(words)
