"""/v1/rules: correction rules, what they would do, and their use on what is there."""

from __future__ import annotations

from omi_edge import rewrite
from omi_edge.errors import BadInput
from omi_edge.rewrite import Rule
from omi_edge.store import conversations, reprocessing, rules
from omi_edge.store.connection import Connection
from omi_edge.store.rules import RuleRow
from omi_edge.web import shapes, times, wire, wordwire
from omi_edge.web.reprocess import asked
from omi_edge.web.route import Answer, Call, NoQuery, Route
from omi_edge.wording import spread


async def listed(call: Call[NoQuery, None]) -> Answer:
    """List the rules."""

    def read(conn: Connection) -> Answer:
        items = [_rule(row) for row in rules.listed(conn)]
        return Answer(wire.Page(items, None), tuple(item.id for item in items), len(items))

    return await call.read(read)


async def add(call: Call[NoQuery, wordwire.RuleNew]) -> Answer:
    """Add a rule."""
    new, now_us = call.body, call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        row = rules.add(conn, new.kind, new.pattern, new.replacement, actor=call.caller.actor, now_us=now_us)
        return Answer(_rule(row), (row.rule.id,), 1)

    return await call.change(act)


async def remove(call: Call[NoQuery, None]) -> Answer:
    """Remove a rule."""

    def act(conn: Connection) -> Answer:
        rules.remove(conn, call.id)
        return Answer(None, (call.id,), 1)

    return await call.change(act)


async def try_out(call: Call[NoQuery, wordwire.RuleTry]) -> Answer:
    """Show what the rules, or one that is not added yet, make of a text."""
    new, words = call.body.rule, spread(call.body.text.split(), 0, 1_000_000)
    if len(words) > rewrite.MOST_WORDS:
        raise BadInput(f"at most {rewrite.MOST_WORDS} words are tried at once; take a shorter text.", "text")

    def read(conn: Connection) -> Answer:
        if new is None:
            wanted = [row.rule for row in rules.listed(conn)]
        else:
            rewrite.check(new.kind, new.pattern, new.replacement)
            wanted = [Rule("", new.kind, new.pattern, new.replacement)]
        made = rewrite.apply(wanted, words)
        before, after = (" ".join(word.text for word in side) for side in (words, made.words))
        return Answer(wordwire.RuleTried(before, after, [shapes.effect(one) for one in made.changes]))

    return await call.read(read)


async def apply(call: Call[NoQuery, wordwire.RulesApply]) -> Answer:
    """Apply the rules to what was heard before, in the background."""
    new, now_us = call.body, call.controls.clock.utc_us()
    if (new.conversation_id is not None) + new.all != 1:
        raise BadInput("name one of these: a conversation, or all.", "conversation_id")

    def act(conn: Connection) -> Answer:
        if new.conversation_id is not None:
            wanted = [conversations.get(conn, new.conversation_id).id]
        else:
            wanted = conversations.ids_between(conn, 0, times.LATEST_US)
        return asked(conn, wanted, engine=reprocessing.RULES, keep=False, actor=call.caller.actor, now_us=now_us)

    answer = await call.change(act)
    call.controls.poke_jobs()
    return answer


def _rule(row: RuleRow) -> wordwire.Rule:
    rule = row.rule
    return wordwire.Rule(rule.id, rule.kind, rule.pattern, rule.replacement, row.actor, times.iso(row.created_us))


ROUTES = (
    Route(
        method="GET",
        path="/v1/rules",
        summary="List the correction rules, in the order in which they are applied",
        act="rules.list",
        handler=listed,
        returns=wire.Page[wordwire.Rule],
    ),
    Route(
        method="POST",
        path="/v1/rules",
        summary="Add a correction rule for what is recognised from now on",
        act="rules.add",
        handler=add,
        body=wordwire.RuleNew,
        returns=wordwire.Rule,
        status=201,
    ),
    Route(
        method="DELETE",
        path="/v1/rules/{id}",
        summary="Remove a correction rule; what it changed stays",
        act="rules.remove",
        handler=remove,
        status=204,
    ),
    Route(
        method="POST",
        path="/v1/rules/try",
        summary="Show what correction rules make of a text; nothing is changed",
        act="rules.try",
        handler=try_out,
        body=wordwire.RuleTry,
        returns=wordwire.RuleTried,
    ),
    Route(
        method="POST",
        path="/v1/rules/apply",
        summary="Apply the correction rules to what was heard before, as a new version of each transcript",
        act="rules.apply",
        handler=apply,
        body=wordwire.RulesApply,
        returns=wire.Reprocessing,
        status=202,
    ),
)
