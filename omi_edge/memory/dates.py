"""Spoken dates: "by friday", "tomorrow at ten thirty", "the third of june", resolved against the moment of speaking.

A grammar of our own over lower-case words. General date parsers take every bare number, "may" and "second" for a date;
here a date needs its own words, and what is not certain says so. Rules where English leaves it open:

* a weekday is the next one after the day of speaking, one to seven days ahead; "next friday" is that of the next
  calendar week (Monday first), uncertain unless it is also the coming one;
* an hour without am or pm is 7 to 11 in the morning, 12 noon, 1 to 6 in the afternoon; with an evening, afternoon or
  night nearby it is pm;
* beside dinner, a party or a concert, 7 to 11 are in the evening; beside breakfast, 5 and 6 are in the morning;
* an hour without a day is the next time the clock shows it, pm before tomorrow;
* a day without an hour ends at 23:59:59 local time; a part of a day ("friday evening") is no hour;
* a week is due on its Friday, a weekend on its Sunday, a month on its last day, none of them certain; the end of a named
  month is certain.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from omi_edge.memory.vocabulary import MONTHS, WEEKDAYS

END_OF_DAY = time(23, 59, 59)
MOMENTS_AHEAD = {"minute": 60, "hour": 3600}
"""Seconds of the units that give an instant; longer units give a day."""

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
_ONES += "seventeen eighteen nineteen"
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
_NUMBERS = {word: value for value, word in enumerate(_ONES.split())} | _TENS
_NUMBERS |= {f"{ten} {one}": _TENS[ten] + n for ten in _TENS for n, one in enumerate(_ONES.split()[1:10], 1)}
_ORDINALS = {
    word: value
    for value, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth".split(),
        1,
    )
} | {"thirtieth": 30, "thirty first": 31}
_ORDINALS |= {f"twenty {word}": 20 + value for word, value in list(_ORDINALS.items())[:9]}
_SHORT_MONTHS = {name[:3]: number for number, name in enumerate(MONTHS, 1)} | {"sept": 9}
_SHORT_DAYS = {name[:3]: number for number, name in enumerate(WEEKDAYS)} | {"tues": 1, "thur": 3, "thurs": 3}


def _any(words: Sequence[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True)).replace(r"\ ", "[ -]")


_NUMBER = rf"(?:\d{{1,3}}|{_any(list(_NUMBERS))})"
_ORDINAL = rf"(?:\d{{1,2}}(?:st|nd|rd|th)|{_any(list(_ORDINALS))})"
_MONTH = rf"(?:{_any(MONTHS)}|{_any(list(_SHORT_MONTHS))})"
_DAY = rf"(?:{_any(WEEKDAYS)}|{_any(list(_SHORT_DAYS))})"
_PART = r"(?:morning|afternoon|evening|night)"
_YEAR = r"(?:20\d\d|twenty (?:twenty|thirty)(?: (?:one|two|three|four|five|six|seven|eight|nine))?)"
_TO_DAY = r"(?P<prep>(?:by )?(?:the )?end of (?:the )?day(?: on)?|by|on|until|till|before|for|at|from|this coming)"
_UNIT = r"(?:minute|hour|day|week|month|year)s?"

_DAYS = re.compile(
    rf"\b(?:{_TO_DAY} )?(?:"
    rf"(?P<dayafter>(?:the )?day after tomorrow)"
    rf"|(?P<tomorrow>tomorrow)"
    rf"|(?P<tonight>tonight)"
    rf"|(?P<today>later today|today|this (?:morning|afternoon|evening|night)|(?:the )?end of (?:the|this) day|end of day)"
    rf"|(?P<weekday>{_DAY}) (?P<weeks>next week|in (?P<inweeks>{_NUMBER}|a) weeks?)"
    rf"|(?P<which>this coming |this |next |coming |the following )?(?P<day>{_DAY})"
    rf"|(?:the )?(?P<end>end of|beginning of|middle of) (?:the |this )?(?P<endwhich>next )?(?P<period>week|weekend|month|year|{_MONTH})\b"
    rf"|(?P<relwhich>this|next|the|the coming) (?P<relative>week|weekend|month|year)"
    rf"|(?:the )?(?P<ordinal>{_ORDINAL}) (?:of )?(?P<month>{_MONTH})(?:,? (?P<year>{_YEAR}))?"
    rf"|(?P<month2>{_MONTH}) (?:the )?(?:(?P<ordinal2>{_ORDINAL})|(?P<cardinal2>\d{{1,2}}))\b(?:,? (?P<year2>{_YEAR}))?"
    rf"|(?P<cardinal3>\d{{1,2}}) (?P<month3>{_MONTH})(?:,? (?P<year3>{_YEAR}))?"
    rf"|(?P<iso>20\d\d-\d\d-\d\d)"
    rf"|the (?P<ofmonth>{_ORDINAL})(?= at | in the (?:morning|afternoon|evening)|$| ?,)"
    rf")(?: (?P<part>{_PART}))?\b"
)
_AHEAD = re.compile(
    rf"\b(?:(?:in|within)(?: the next)? (?P<few>about |around )?(?P<count>an?|half an|a couple of|a few|the next|{_NUMBER})"
    rf" (?P<unit>{_UNIT})(?:'s? time)?|(?P<count2>an?|{_NUMBER}) (?P<unit2>days?|weeks?|months?) from (?:now|today))\b"
)
_MARK = r"(?:am|pm|a m|p m|o'?clock)"
_CLOCK = re.compile(
    rf"\b(?P<prep>(?:at|by|before|around|about|until|till|from|for|and) (?:about |around )?)?(?:"
    rf"(?P<noon>noon|midday|midnight)"
    rf"|(?P<half>half past|quarter past|a quarter past|quarter to|a quarter to) (?P<halfhour>{_NUMBER})"
    rf"|(?P<past>five|ten|twenty|twenty five) (?P<dir>past|to) (?P<pasthour>{_NUMBER})"
    rf"|(?P<hh>\d{{1,2}})[:.](?P<mm>\d\d) ?(?P<mark1>am|pm)?"
    rf"|(?P<glued>\d{{1,2}})(?P<mark2>am|pm)"
    rf"|(?P<hour>\d{{1,2}}|{_any(_ONES.split()[1:13])})"
    rf"(?: (?P<minute>(?:oh |o )(?:{_any(_ONES.split()[1:10])})|{_any([w for w, v in _NUMBERS.items() if 10 <= v < 60])}))?"
    rf"(?: (?P<mark>{_MARK}))?"
    rf")(?: (?P<inthe>in the (?:morning|afternoon|evening)|at night|sharp|tonight|this (?:morning|afternoon|evening)))?"
    rf"(?![\w:%'$€£-])"
)
_LOOSE_PART = re.compile(r"\bin the (?P<part>morning|afternoon|evening)\b")
_EVENING_OUT = re.compile(
    r"\b(?:dinner|supper|table|drinks|beers?|party|movies?|cinema|concert|theatre|theater|opera)\b"
)
_EARLY = re.compile(r"\b(?:breakfast|wake|alarm|sunrise)\b")
_SOON = re.compile(r"\b(?:soon|sometime|some time|some day|someday|one of these days|at some point)\b")
_PAST = re.compile(r"(?:last|past|not|since|every|each|ago|was|were|yesterday|most|usually)\s*$")
_NOT_HOURS = re.compile(
    r" (?:percent|per|dollars?|euros?|pounds?|cents?|bucks|people|persons?|degrees?|miles?|kilometers?|kilometres?|"
    r"meters?|metres?|years?|months?|weeks?|days?|nights?|hours?|minutes?|seconds?|times?|point|hundred|thousand|million|"
    r"of|end|side|place|moment|go|stage|or|and a half|more|other|things?|different|big|small|new|children|kids|"
    r"bottles?|boxes|pieces|pages|items|copies|cups?|bags?|tables?|tickets?|seats?|rooms?|chairs?|eggs|men|women)\b"
)


class Due(msgspec.Struct, frozen=True):
    """When something is due, and which words say so."""

    due_us: int | None
    """UTC; None when only "soon" was said."""
    has_time: bool
    certain: bool
    spans: tuple[tuple[int, int], ...]
    """Character ranges of the text, for cutting out."""
    day: date | None = None
    """The day that was named, if one was."""


class _Day(msgspec.Struct, frozen=True):
    day: date
    certain: bool
    part: str
    span: tuple[int, int]
    cut: bool = True


class _Clock(msgspec.Struct, frozen=True):
    hour: int
    minute: int
    exact: bool
    """am or pm is known."""
    span: tuple[int, int]
    cut: bool = True


def find_due(text: str, moment_us: int, zone: ZoneInfo, context_day: date | None = None) -> Due | None:
    """Return when ``text`` says something is due, None when it does not.

    ``text`` is lower-case words joined by single spaces; ``moment_us`` is when they were said (UTC µs);
    ``context_day`` is a day spoken of shortly before, taken, uncertainly, for an hour without a day.
    """
    try:
        now = datetime.fromtimestamp(moment_us / 1_000_000, UTC).astimezone(zone)
        return _find(text, moment_us, now, context_day)
    except (OverflowError, ValueError, OSError):
        return None  # a moment or a number of years beyond the calendar


def _find(text: str, moment_us: int, now: datetime, context_day: date | None) -> Due | None:
    ahead = _ahead(text, moment_us, now)
    if isinstance(ahead, Due):
        return ahead
    days = [ahead] if ahead else _days(text, now)
    clock = _clock(text, days)
    if not days and clock is None:
        return _vague(text, now)
    spans = tuple(piece.span for piece in days if piece.cut)
    if clock is not None and clock.cut:
        spans += (clock.span,)
    if not days:
        assert clock is not None
        return _without_day(clock, _hour(clock, _part_meant(text)), now, context_day, spans)
    day = days[0]
    certain = day.certain and len({piece.day for piece in days}) == 1
    at = time(_hour(clock, day.part or _part_meant(text)), clock.minute) if clock else END_OF_DAY
    due = _utc_us(datetime.combine(day.day, at), now)
    if due < moment_us and clock is not None and not clock.exact and at.hour < 12:
        due, certain = _utc_us(datetime.combine(day.day, at.replace(hour=at.hour + 12)), now), False
    if due < moment_us:
        if clock is None or day.day > now.date():
            return None
        due, certain = _utc_us(datetime.combine(day.day, END_OF_DAY), now), False
        return Due(due, False, certain, spans, day.day)
    return Due(due, clock is not None, certain, spans, day.day)


def _ahead(text: str, moment_us: int, now: datetime) -> Due | _Day | None:
    """Read "in two weeks", "in half an hour", "three days from now"."""
    found = _AHEAD.search(text)
    if found is None:
        return None
    said, unit = found["count"] or found["count2"], (found["unit"] or found["unit2"]).rstrip("s")
    certain = not found["few"] and said not in ("a few", "a couple of") and "next" not in found[0]
    count = {"a": 1.0, "an": 1.0, "half an": 0.5, "a couple of": 2.0, "a few": 3.0, "the next": 1.0}.get(said)
    count = float(_number(said)) if count is None else count
    if unit in MOMENTS_AHEAD:
        due_us = moment_us + round(count * MOMENTS_AHEAD[unit] * 1_000_000)
        day = datetime.fromtimestamp(due_us / 1_000_000, UTC).astimezone(now.tzinfo).date()
        return Due(due_us, True, certain, (found.span(),), day)
    today = now.date()
    if unit in ("month", "year"):
        months = round(count) * (12 if unit == "year" else 1)
        return _Day(_plus_months(today, months), certain, "", found.span())
    return _Day(today + timedelta(days=round(count) * (7 if unit == "week" else 1)), certain, "", found.span())


def _days(text: str, now: datetime) -> list[_Day]:
    days = []
    for found in _DAYS.finditer(text):
        if _PAST.search(text[: found.start()]) or re.match(r" (?:ago|was|last)\b|'s\b", text[found.end() :]):
            continue
        named = _named_day(found, now.date())
        if named is None:
            continue
        day, certain = named
        prep = found["prep"]
        if prep == "before":
            day = max(now.date(), day - timedelta(days=1))
        if prep == "from":
            certain = False
        # "a table for friday" is about the table: the words stay, and the day is only likely the deadline
        days.append(_Day(day, certain and prep != "for", _part_of(found), found.span(), cut=prep != "for"))
    return days


def _part_of(found: re.Match[str]) -> str:
    words = found[0].split()
    if found["tonight"]:
        return "night"
    return words[-1] if words[-1] in ("morning", "afternoon", "evening", "night") else ""


def _named_day(found: re.Match[str], today: date) -> tuple[date, bool] | None:
    if found["dayafter"]:
        return today + timedelta(days=2), True
    if found["tomorrow"]:
        return today + timedelta(days=1), True
    if found["tonight"] or found["today"]:
        return today, True
    if found["weekday"]:
        weeks = _number(found["inweeks"]) if found["inweeks"] and found["inweeks"] != "a" else 1
        return _monday(today) + timedelta(days=7 * weeks + _weekday(found["weekday"])), True
    if found["day"]:
        return _coming(found, today)
    if found["period"] or found["relative"]:
        return _period(found, today)
    return _calendar_day(found, today)


def _coming(found: re.Match[str], today: date) -> tuple[date, bool] | None:
    if found["day"] in ("sun", "sat", "wed", "mon", "fri") and not (found["prep"] or found["which"]):
        return None  # words of their own
    weekday = _weekday(found["day"])
    coming = today + timedelta(days=(weekday - today.weekday() - 1) % 7 + 1)
    if (found["which"] or "").strip() in ("next", "the following"):
        following = _monday(today) + timedelta(days=7 + weekday)
        return following, following == coming
    return coming, True


def _period(found: re.Match[str], today: date) -> tuple[date, bool] | None:
    period, ends = found["period"] or found["relative"], found["end"] == "end of"
    following = bool(found["endwhich"]) or found["relwhich"] == "next"
    if found["relwhich"] == "the" and (
        period != "weekend" or found["prep"] not in ("on", "at", "by", "until", "before")
    ):
        return None  # "for the weekend", "the week" name no day
    monday = _monday(today) + timedelta(days=7 * following)
    if period == "week":
        friday = monday + timedelta(days=4)
        return (friday if friday >= today else monday + timedelta(days=6)), False
    if period == "weekend":
        return monday + timedelta(days=6), False
    if period == "year":
        return date(today.year + following, 12, 31), ends
    if period == "month":
        first = _plus_months(today.replace(day=1), int(following))
        return _last_day(first.year, first.month), ends
    month = _month(period)
    return _last_day(today.year + (month < today.month), month), ends


def _calendar_day(found: re.Match[str], today: date) -> tuple[date, bool] | None:
    if found["iso"]:
        return date.fromisoformat(found["iso"]), True
    if found["ofmonth"]:
        if found["prep"] not in ("on", "by", "until", "till", "before"):
            return None
        day, month = _number(found["ofmonth"]), today.replace(day=1)
        for ahead in range(3):  # at most two months in a row are too short for a day of the month
            first = _plus_months(month, ahead)
            if day <= _last_day(first.year, first.month).day and first.replace(day=day) >= today:
                return first.replace(day=day), True
        return None
    name = found["month"] or found["month2"] or found["month3"]
    day = _number(found["ordinal"] or found["ordinal2"] or found["cardinal2"] or found["cardinal3"])
    year = found["year"] or found["year2"] or found["year3"]
    month_number = _month(name)
    if year:
        return date(_year(year), month_number, day), True
    for ahead in range(9):  # 29 February comes within eight years
        if day <= _last_day(today.year + ahead, month_number).day:
            candidate = date(today.year + ahead, month_number, day)
            if candidate >= today:
                return candidate, True
    return None


def _clock(text: str, days: Sequence[_Day]) -> _Clock | None:
    """Return the first hour; a bare number needs "at", a mark or a day right before it."""
    for found in _CLOCK.finditer(text):
        if _PAST.search(text[: found.start()]) or _NOT_HOURS.match(text[found.end() :]):
            continue
        if any(day.span[0] < found.end() and found.start() < day.span[1] for day in days):
            continue
        read = _read_clock(found)
        prep = (found["prep"] or "").strip()
        marked = not (found["hour"] and not found["mark"] and not found["inthe"])
        beside = any(text[day.span[1] : found.start()].strip(" ,") == "" for day in days) or any(
            text[found.end() : day.span[0]].strip(" ,") == "" for day in days
        )
        told = prep.startswith(("at", "by", "before", "until", "till")) and not prep.endswith(("around ", "about "))
        if read is None or not (marked or told or (beside and (prep or found["minute"]))):
            continue
        if prep == "and" and not beside:
            continue
        return msgspec.structs.replace(read, span=found.span(), cut=all(day.cut for day in days))
    return None


def _read_clock(found: re.Match[str]) -> _Clock | None:
    mark = " ".join(part for part in (found["mark"], found["mark1"], found["mark2"], found["inthe"]) if part)
    if found["noon"]:
        return _Clock(0 if found["noon"] == "midnight" else 12, 0, True, (0, 0))
    if found["half"]:
        hour, minute = _number(found["halfhour"]), 30 if "half" in found["half"] else 15
        hour, minute = (hour - 1, 45) if found["half"].endswith("to") else (hour, minute)
    elif found["past"]:
        hour, minute = _number(found["pasthour"]), _number(found["past"])
        hour, minute = (hour - 1, 60 - minute) if found["dir"] == "to" else (hour, minute)
    elif found["hh"]:
        hour, minute = int(found["hh"]), int(found["mm"])
    else:
        hour, minute = _number(found["glued"] or found["hour"]), 0
        if found["minute"]:
            minute = _number(found["minute"].removeprefix("oh ").removeprefix("o "))
    if hour == 0 and (found["half"] or found["past"]):
        hour = 12
    if not (0 <= hour < 24 and 0 <= minute < 60) or (hour == 0 and not found["hh"]):
        return None
    exact = hour > 12 or hour == 0
    if re.search(r"\bpm|p m|afternoon|evening|night|tonight", mark) and hour < 12:
        hour, exact = hour + 12, True
    elif re.search(r"\bam|a m|morning", mark):
        hour, exact = hour % 12 if hour == 12 else hour, True
    elif "pm" in mark or "afternoon" in mark:
        exact = True
    return _Clock(hour, minute, exact, (0, 0))


def _hour(clock: _Clock, part: str) -> int:
    if clock.exact:
        return clock.hour
    if part in ("afternoon", "evening", "night") and clock.hour < 12:
        return clock.hour + 12
    if part == "morning":
        return clock.hour % 12
    if part == "early" and clock.hour in (5, 6):
        return clock.hour
    return clock.hour + 12 if 1 <= clock.hour <= 6 else clock.hour


def _part_meant(text: str) -> str:
    if _EVENING_OUT.search(text):
        return "evening"
    return "early" if _EARLY.search(text) else ""


def _without_day(
    clock: _Clock, hour: int, now: datetime, context_day: date | None, spans: tuple[tuple[int, int], ...]
) -> Due:
    if context_day is not None and context_day > now.date():
        at = datetime.combine(context_day, time(hour, clock.minute))
        return Due(_utc_us(at, now), True, False, spans, context_day)
    candidates = [(hour, 0, True)]
    if not clock.exact and hour < 12:
        candidates.append((hour + 12, 0, False))
    candidates.append((hour, 1, clock.exact))
    moment_us = round(now.timestamp() * 1_000_000)
    for candidate, days, certain in candidates:
        at = datetime.combine(now.date() + timedelta(days=days), time(candidate, clock.minute))
        due_us = _utc_us(at, now)
        if due_us > moment_us:
            return Due(due_us, True, certain, spans)
    raise ValueError("tomorrow is always ahead")


def _vague(text: str, now: datetime) -> Due | None:
    part = _LOOSE_PART.search(text)
    if part:
        latest = {"morning": 10, "afternoon": 16, "evening": 20}[part["part"]]
        day = now.date() + timedelta(days=now.hour >= latest)
        return Due(_utc_us(datetime.combine(day, END_OF_DAY), now), False, False, (part.span(),), day)
    soon = _SOON.search(text)
    return Due(None, False, False, (soon.span(),)) if soon else None


def _utc_us(local: datetime, now: datetime) -> int:
    """A local time that the clocks skip in spring becomes the moment just as far after the change (PEP 495)."""
    return round(local.replace(tzinfo=now.tzinfo).timestamp() * 1_000_000)


def _number(said: str) -> int:
    said = said.replace("-", " ")
    if said in _ORDINALS:
        return _ORDINALS[said]
    if said in _NUMBERS:
        return _NUMBERS[said]
    return int(re.sub(r"\D", "", said))


def _year(said: str) -> int:
    if said.isdigit():
        return int(said)
    return 2000 + _number(said.removeprefix("twenty "))


def _month(name: str) -> int:
    return MONTHS.index(name) + 1 if name in MONTHS else _SHORT_MONTHS[name]


def _weekday(name: str) -> int:
    return WEEKDAYS.index(name) if name in WEEKDAYS else _SHORT_DAYS[name]


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _last_day(year: int, month: int) -> date:
    return date(year, month, calendar.monthrange(year, month)[1])


def _plus_months(day: date, months: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, _last_day(year, month + 1).day))
