"""Omi's 33 categories (data model dossier §6.2): an emoji and the words that speak for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

OTHER = "other"
LEAST_HITS = 2
"""Words, counted with repeats, that must speak for a category; one alone is chance."""
MOST_PER_WORD = 3
"""How often a repeated word counts, so that one word cannot outvote a topic."""

_TABLE: dict[str, tuple[str, str]] = {
    "personal": ("🧠", "diary feelings myself habit routine hobby birthday goals journal"),
    "education": ("🎓", "school teacher class course homework university college exam lesson student students study "
                        "studies lecture professor degree semester grades tutor"),
    "health": ("🩺", "doctor dentist hospital appointment medicine pain ill sick therapy allergic blood pressure surgery "
                     "nurse pills prescription symptoms fever headache patient clinic vaccine diet tooth knee"),
    "finance": ("💰", "bank money loan mortgage tax taxes invoice payment budget savings account credit insurance salary "
                      "interest investment shares stocks pension rent cost costs"),
    "legal": ("⚖️", "lawyer court contract lawsuit judge legal attorney law clause notary testament signature lease"),
    "philosophy": ("🤔", "philosophy meaning ethics existence moral truth consciousness plato kant stoic stoicism"),
    "spiritual": ("🙏", "church god prayer pray bible meditation temple mosque faith soul religion religious mass"),
    "science": ("🔬", "science experiment physics chemistry biology laboratory research theory molecule hypothesis atoms "
                      "galaxy telescope scientist scientists cells"),
    "entrepreneurship": ("🚀", "startup founder founders investors investor pitch venture funding seed product-market "
                               "cofounder accelerator valuation"),
    "parenting": ("👶", "kids children baby kindergarten daycare toddler diapers bedtime parents nursery stroller "
                        "breastfeeding playground"),
    "romantic": ("❤️", "date romantic love wedding kiss girlfriend boyfriend engagement anniversary marry valentine"),
    "travel": ("✈️", "trip travel train flight airport hotel ticket tickets vacation holiday passport luggage journey "
                     "plane suitcase tour station booking beach cruise visa"),
    "inspiration": ("✨", "inspiration inspiring motivation dream dreams courage gratitude grateful vision"),
    "technology": ("💻", "computer software app laptop phone code internet server programming algorithm robot website "
                         "database update bug battery wifi password screen"),
    "business": ("💼", "meeting client customer customers contract sales offer market company deal proposal negotiation "
                       "supplier office quarter revenue strategy manager invoice order conference"),
    "social": ("👥", "party friends friend dinner invite invited guests drinks barbecue bar neighbours neighbors "
                     "celebrate celebration wedding club picnic"),
    "work": ("🗂️", "project deadline report office boss colleague colleagues presentation team task sprint shift salary "
                   "meeting desk agenda spreadsheet slides hiring interview"),
    "sports": ("⚽", "football soccer basketball tennis match team goal gym training marathon running swimming coach game "
                    "league player players score cycling ski hiking"),
    "politics": ("🏛️", "election government president minister parliament vote party senate policy democracy mayor "
                       "campaign referendum congress"),
    "literature": ("📚", "book books novel author poem poetry chapter reading library writer literature"),
    "history": ("📜", "history war ancient century empire medieval revolution historian king queen castle museum"),
    "architecture": ("🏗️", "architect architecture building facade construction blueprint floor-plan cathedral tower "
                           "concrete"),
    "music": ("🎵", "music song songs concert guitar piano band album singer violin orchestra melody rehearsal choir drums"),
    "weather": ("🌦️", "weather rain sunny snow storm forecast cloudy temperature degrees wind warm cold umbrella thunder"),
    "news": ("📰", "news headline headlines newspaper journalist reporter breaking press report reported"),
    "entertainment": ("🎬", "movie film series cinema show actor actress theatre theater netflix episode game games season "
                           "comedy television"),
    "psychology": ("🧩", "psychology therapist anxiety depression stress emotion emotions trauma mental behaviour behavior "
                        "therapy burnout"),
    "real": ("🏠", "apartment house rent landlord tenant mortgage realtor property lease flat viewing estate rooms"),
    "design": ("🎨", "design designer logo colour color colors layout font sketch typography prototype poster figma"),
    "family": ("👪", "mother father sister brother son daughter wife husband grandmother grandfather family parents uncle "
                    "aunt cousin children dinner cake mum mom dad supermarket milk bread"),
    "economics": ("📈", "economy inflation recession market growth trade unemployment economics supply demand tariffs gdp"),
    "environment": ("🌱", "climate environment pollution recycling solar carbon forest energy nature wildlife plastic "
                          "garden plants emissions"),
    "other": ("💬", ""),
}  # fmt: skip

EMOJI = {category: emoji for category, (emoji, _) in _TABLE.items()}
TOPIC_WORDS = frozenset(word for _, words in _TABLE.values() for word in words.split())
"""All words that speak for some category: nouns worth a place in a title."""
_BY_WORD: dict[str, list[str]] = {}
for _category, (_, _listed) in _TABLE.items():
    for _word in _listed.split():
        _BY_WORD.setdefault(_word, []).append(_category)


def categorize(words: Iterable[str]) -> str:
    """Return the category that most words speak for, "other" without enough of them or at a draw."""
    scores: Counter[str] = Counter()
    for word, count in Counter(words).items():
        speaks_for = _BY_WORD.get(word) or _BY_WORD.get(word.removesuffix("s"), [])
        for category in speaks_for:
            scores[category] += min(count, MOST_PER_WORD) / len(speaks_for) ** 0.5
    ranked = scores.most_common(2)
    if not ranked or ranked[0][1] < LEAST_HITS or (len(ranked) > 1 and ranked[1][1] == ranked[0][1]):
        return OTHER
    return ranked[0][0]
