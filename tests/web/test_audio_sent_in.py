"""The audio of a recording that was sent in, and what proves words that were said in it."""

from __future__ import annotations

import pytest

from omi_edge.domain import AudioChunk, Outcome, SpeechSegment, Utterance, Word
from omi_edge.errors import BadInput, NotFound
from omi_edge.opus import silence_packet
from omi_edge.store import audio, memories, segments, sources, transcripts, uploads
from omi_edge.store.connection import Connection
from omi_edge.store.memories import EvidenceRow
from omi_edge.web import shapes, wire
from tests.helpers import START_US
from tests.web.conftest import BEGAN_US, CONVERSATION, SOURCE, UTTERANCE, Site

PATH = f"/v1/conversations/{CONVERSATION}/audio"
BEGIN_S, END_S = -1.9996, 40.0
"""Of the recording, by the conversation's time: it begins before it and ends behind it, at no whole millisecond."""
RATE = 16_000


async def send_in(site: Site) -> str:
    """Have a recording, whose words are shown, said at its very beginning and behind the conversation's end."""

    def work(conn: Connection) -> str:
        start_us = BEGAN_US + round(BEGIN_S * 1e6)
        row = uploads.begin(conn, CONVERSATION, name="talk", start_us=start_us, client_id=None, now_us=START_US)
        frames = round((END_S - BEGIN_S) * 50)
        packets = (silence_packet(uploads.CODEC),) * 100
        for first in range(0, frames, len(packets)):
            some = packets[: frames - first]
            audio.put(conn, AudioChunk(row.source_id, start_us + first * 20_000, uploads.CODEC, some))
        end_us = start_us + frames * 20_000
        sources.advance(conn, row.source_id, heard_until_us=end_us, dropped_bytes=0, dropped_us=0)
        uploads.heard(conn, row, end_us, START_US)
        said = []
        for at, (from_s, to_s) in {"early": (BEGIN_S, -0.5), "last": (37.0, 39.0)}.items():
            times = BEGAN_US + round(from_s * 1e6), BEGAN_US + round(to_s * 1e6)
            segments.put(conn, SpeechSegment(f"seg_{at}", row.source_id, *times, 1))
            segments.settle(conn, f"seg_{at}", outcome=Outcome.TEXT, reason=None, engine="t", conversation_id=None)
            said.append(
                Utterance(
                    f"utt_{at}", CONVERSATION, f"seg_{at}", row.source_id, None, *times, f"zebra {at}",
                    (Word("zebra", *times, 1.0),), 1.0, None, Outcome.TEXT,
                )
            )  # fmt: skip
        transcripts.new_version(
            conn, CONVERSATION, id="ver_sent", kind="reprocessed", engine="t", now_us=START_US, utterances=said,
            activate=False, upload_id=row.id,
        )  # fmt: skip
        transcripts.activate(conn, CONVERSATION, "ver_sent")
        return row.source_id

    return await site.controls.opened.write(work)


async def length(site: Site, path: str) -> float:
    """Return how many seconds a path plays."""
    path += "&format=wav" if "?" in path else "?format=wav"
    return round((len(b"".join([piece async for piece in site.unix.stream(path)])) - 44) / 2 / RATE, 2)


async def test_its_own_audio_plays_by_the_conversation_s_time(site: Site) -> None:
    source_id = await send_in(site)
    of_it = f"{PATH}?source={source_id}"
    assert await length(site, of_it) == round(END_S - BEGIN_S, 2)
    assert await length(site, f"{of_it}&from=-1&to=1.5") == 2.5
    assert await length(site, f"{of_it}&from=39&to=100") == 1.0
    assert await length(site, f"{of_it}&from=-100&to=0") == round(-BEGIN_S, 2)
    with pytest.raises(BadInput, match="inside the recording"):
        await length(site, f"{of_it}&from=41")
    # what is named no other way is the conversation's own
    assert await length(site, f"{PATH}?source={SOURCE}&to=2") == await length(site, f"{PATH}?to=2") == 2.0
    with pytest.raises(BadInput, match="before the conversation"):
        await length(site, f"{PATH}?from=-1&to=2")
    with pytest.raises(NotFound, match="no such source"):
        await length(site, f"{PATH}?source=src_nobody")


async def test_a_source_of_another_conversation_is_not_played(site: Site) -> None:
    await send_in(site)

    def other(conn: Connection) -> str:
        return sources.add(
            conn, id="src_other", kind="upload", name="o", device_id=None, client_id=None, codec=uploads.CODEC,
            created_us=START_US,
        ).id  # fmt: skip

    other_id = await site.controls.opened.write(other)
    with pytest.raises(NotFound, match="no such source"):
        await length(site, f"{PATH}?source={other_id}")


async def test_what_search_finds_in_it_is_proven_by_it(site: Site) -> None:
    source_id = await send_in(site)
    found = await site.unix.request("GET", "/v1/search?q=zebra", returns=wire.SearchResult)
    spans = {hit.id: hit.span for hit in found.hits if hit.kind == "utterance"}
    assert {hit.source.kind for hit in found.hits if hit.source is not None and hit.id in spans} == {"upload"}
    early, last = spans["utt_early"], spans["utt_last"]
    assert early is not None
    assert last is not None
    assert early.audio == f"{PATH}?source={source_id}&from=-2.000&to=-0.500"
    assert last.audio == f"{PATH}?source={source_id}&from=37.000&to=39.000"
    assert [await length(site, span.audio) for span in (early, last)] == [1.5, 2.0]


async def test_what_tasks_and_memories_rest_on_is_proven_by_it(site: Site) -> None:
    source_id = await send_in(site)

    def point(conn: Connection) -> tuple[EvidenceRow, ...]:
        conn.execute("UPDATE evidence SET utterance_id = 'utt_last' WHERE utterance_id = ?", (UTTERANCE,))
        (thing_id,) = conn.execute("SELECT thing_id FROM evidence WHERE utterance_id = 'utt_last'").fetchone()
        return memories.evidence_of(conn, thing_id)

    (row,) = await site.controls.opened.write(point)
    assert f"/audio?source={source_id}&from=" in shapes.span(row).audio
    found = await site.unix.request("GET", f"/v1/conversations/{CONVERSATION}", returns=wire.Conversation)
    assert found.tasks[0].evidence[0].audio == shapes.span(row).audio
