"""Friend-Lite's audio calls: the speech of a conversation alone, cut with today's settings, and who speaks now."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.config import AudioConfig
from omi_edge.domain import Outcome, SpeechSegment
from omi_edge.opus import Decoder
from omi_edge.store import segments, transcripts
from omi_edge.store.connection import Connection
from omi_edge.web.cropped import cut_ranges
from tests.helpers import START_US
from tests.web.conftest import CONVERSATION, SOURCE, Site, stored

PATH = f"/api/conversations/{CONVERSATION}/cropped"
AGAIN = f"/api/conversations/{CONVERSATION}/reprocess"
HEADER = 44
SPOKEN = ((1.0, 3.0), (3.5, 3.9), (4.0, 6.0), (13.0, 14.0))
"""Segments of the conversation, in seconds from the first chunk."""


async def speak(site: Site, spoken: tuple[tuple[float, float], ...] = SPOKEN) -> None:
    def work(conn: Connection) -> None:
        for number, (start_s, end_s) in enumerate(spoken):
            start_us, end_us = START_US + round(start_s * 1e6), START_US + round(end_s * 1e6)
            segments.put(conn, SpeechSegment(f"seg_s{number}", SOURCE, start_us, end_us, end_us - start_us))
            segments.settle(
                conn, f"seg_s{number}", outcome=Outcome.TEXT, reason=None, engine="t", conversation_id=CONVERSATION
            )

    await site.controls.opened.write(work)


def settings(site: Site, padding: float, minimum: float) -> None:
    config = AudioConfig(crop_padding=padding, crop_minimum=minimum)
    site.controls.config = msgspec.structs.replace(site.controls.config, audio=config)


async def ask(
    site: Site, path: str = PATH, method: str = "GET", query: dict[str, str] | None = None, **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    async with site.tcp.request(method, path, params=query, headers={**site.bearer, **headers}) as response:
        return response.status, response.headers, await response.read()


async def told(site: Site, path: str = PATH, method: str = "GET") -> tuple[int, Any]:
    status, headers, body = await ask(site, path, method)
    assert headers["Content-Type"].startswith("application/")
    return status, msgspec.json.decode(body)


async def test_the_cut_is_told_as_friend_lite_tells_it(site: Site) -> None:
    await speak(site)
    settings(site, 0.1, 1.0)
    status, found = await told(site)
    assert status == 200
    at = START_US / 1e6
    assert [(round(s["start"] - at, 3), round(s["end"] - at, 3)) for s in found["speech_segments"]] == [
        (0.9, 3.1), (3.9, 6.1), (12.9, 14.1),
    ]  # fmt: skip
    assert found["audio_uuid"] == CONVERSATION
    assert found["has_cropped_version"] is True
    assert found["cropped_at"] == site.controls.clock.utc_us() / 1e6
    assert found["original_audio_path"] == f"/v1/conversations/{CONVERSATION}/audio?format=wav"
    status, headers, wav = await ask(site, found["cropped_audio_path"])
    assert (status, headers["Content-Type"]) == (200, "audio/wav")
    assert found["cropped_duration"] == (len(wav) - HEADER) / 32_000
    status, _, original = await ask(site, found["original_audio_path"])
    assert (status, original[:4]) == (200, b"RIFF")


async def test_the_audio_is_the_speech_and_nothing_else(site: Site, packets: list[bytes]) -> None:
    await speak(site)
    settings(site, 0.0, 0.0)
    status, headers, wav = await ask(site, query={"format": "wav"})
    assert (status, headers["Content-Length"], headers["Accept-Ranges"]) == (200, str(len(wav)), "bytes")
    assert headers["Content-Disposition"] == f'inline; filename="{CONVERSATION}_cropped.wav"'
    samples = np.frombuffer(wav[HEADER:], "<i2")
    assert len(samples) == round(sum(end - start for start, end in SPOKEN) * 16_000)
    decoder = Decoder(stored(packets)[0].codec)
    heard = np.concatenate([decoder.decode(packet) for packet in packets])  # the recording's first chunk is its start
    wanted = np.concatenate([heard[round(start * 16_000) : round(end * 16_000)] for start, end in SPOKEN])
    # a fresh decoder needs a moment: compare all but the seam behind the pause that was not kept
    off = np.abs(samples.astype(np.int32) - wanted.astype(np.int32))
    assert np.median(off) <= 2
    assert (off > 300).mean() < 0.05


@pytest.mark.parametrize("accept", ["audio/*", "audio/wav, */*;q=0.5", "text/html, AUDIO/x-wav"])
async def test_a_player_gets_audio_without_asking(site: Site, accept: str) -> None:
    await speak(site)
    _, _, wav = await ask(site, query={"format": "wav"})
    status, headers, body = await ask(site, Accept=accept)
    assert (status, headers["Content-Type"], headers["Vary"], body == wav) == (200, "audio/wav", "Accept", True)
    assert (await ask(site, query={"format": "json"}, Accept=accept))[1]["Content-Type"] == "application/json"
    assert (await ask(site, Accept="*/*"))[1]["Content-Type"] == "application/json"


async def test_every_part_equals_the_slice_of_the_whole(site: Site) -> None:
    await speak(site)
    _, headers, whole = await ask(site, query={"format": "wav"})
    total = len(whole)
    seam = HEADER + 2 * round(2.2 * 16_000)
    for first, last in ((0, 0), (40, 50), (seam - 7, seam + 9), (seam, seam), (total // 2, total - 1), (44, total - 1)):
        status, part_headers, part = await ask(site, query={"format": "wav"}, Range=f"bytes={first}-{last}")
        assert (status, part_headers["Content-Range"]) == (206, f"bytes {first}-{last}/{total}")
        assert part == whole[first : last + 1], (first, last)
    assert (await ask(site, query={"format": "wav"}, Range=f"bytes={total}-"))[0] == 416
    status, headers, body = await ask(site, method="HEAD", query={"format": "wav"})
    assert (status, headers["Content-Length"], body) == (200, str(total), b"")


async def test_reprocess_cuts_with_todays_settings_and_leaves_the_text_alone(site: Site) -> None:
    await speak(site)
    settings(site, 0.1, 1.0)
    _, before = await told(site)
    text = await site.controls.opened.read(lambda conn: transcripts.utterances(conn, CONVERSATION))
    settings(site, 0.0, 1.5)
    status, again = await told(site, AGAIN, "POST")
    assert status == 200
    assert (again["audio_uuid"], again["speech_segments"]) == (CONVERSATION, 2)
    assert (again["cropping_padding"], again["min_speech_duration"], again["cropped_duration"]) == (0.0, 1.5, 4.0)
    _, after = await told(site)
    assert (len(before["speech_segments"]), len(after["speech_segments"])) == (3, 2)
    assert after["cropped_duration"] == 4.0
    assert await site.controls.opened.read(lambda conn: transcripts.utterances(conn, CONVERSATION)) == text


async def test_a_conversation_without_speech_long_enough_has_no_cut(site: Site) -> None:
    await speak(site)
    settings(site, 0.1, 30.0)
    status, found = await told(site)
    assert (status, found["has_cropped_version"], found["cropped_audio_path"]) == (200, False, None)
    assert (found["speech_segments"], found["cropped_duration"], found["cropped_at"]) == ([], None, None)
    status, headers, body = await ask(site, query={"format": "wav"})
    assert (status, headers["Content-Type"]) == (404, "application/problem+json")
    assert b"crop_minimum" in body
    assert (await told(site, AGAIN, "POST"))[0] == 400


async def test_audio_that_is_gone_is_left_out(site: Site) -> None:
    await speak(site, ((2.0, 4.0), (9.0, 11.0)))  # nothing is stored between 8 and 12
    settings(site, 0.0, 1.0)
    _, found = await told(site)
    assert len(found["speech_segments"]) == 1
    assert found["cropped_duration"] == 2.0


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/api/conversations/con_none/cropped", 404), ("GET", f"{PATH}?format=mp3", 400),
    ("GET", f"{PATH}?speed=2", 400), ("POST", "/api/conversations/con_none/reprocess", 404),
    ("GET", "/api/debug/speech_segments?x=1", 400),
])  # fmt: skip
async def test_what_cannot_be_answered_is_a_problem(site: Site, method: str, path: str, status: int) -> None:
    got, headers, _ = await ask(site, path, method)
    assert (got, headers["Content-Type"]) == (status, "application/problem+json")


async def test_nothing_is_given_without_a_token_and_all_leaves_a_row(site: Site) -> None:
    await speak(site)
    for method, path in (("GET", PATH), ("POST", AGAIN), ("GET", "/api/debug/speech_segments")):
        async with site.tcp.request(method, path) as response:
            assert response.status == 401
    for method, path in (("GET", PATH), ("GET", f"{PATH}?format=wav"), ("POST", AGAIN)):
        assert (await ask(site, path, method))[0] == 200
    assert (await ask(site, "/api/debug/speech_segments"))[0] == 200
    rows = await site.rows()
    assert [(act, outcome) for _, act, outcome in rows if outcome == "ok"] == [
        ("audio.cropped", "ok"), ("audio.cropped", "ok"), ("audio.reprocess", "ok"), ("socket.segments", "ok"),
    ]  # fmt: skip
    assert [act for _, act, outcome in rows if outcome == "denied"] == [
        "audio.cropped", "audio.reprocess", "socket.segments",
    ]  # fmt: skip


async def test_who_sends_now_is_told_with_its_speech(site: Site) -> None:
    settings(site, 0.2, 0.5)
    _, found = await told(site, "/api/debug/speech_segments")
    assert found == {
        "active_clients": 0, "audio_cropping_enabled": True, "min_speech_duration": 0.5, "cropping_padding": 0.2,
        "clients": {},
    }  # fmt: skip
    async with site.tcp.ws_connect("/ws?device_name=phone", headers=site.bearer) as ws:
        source_id = msgspec.json.decode((await ws.receive()).data)["source_id"]
        _, found = await told(site, "/api/debug/speech_segments")
        assert found["active_clients"] == 1
        assert found["clients"]["laptop-phone"] == {
            "current_audio_uuid": None, "speech_segments": {}, "current_speech_start": {}, "connected": True,
            "last_transcript_time": None,
        }  # fmt: skip
        site.controls.sounds[source_id].speaking_since_us = START_US
        await site.controls.opened.write(lambda conn: _talk(conn, source_id))
        _, found = await told(site, "/api/debug/speech_segments")
        phone = found["clients"]["laptop-phone"]
        at = START_US / 1e6
        assert (phone["current_audio_uuid"], phone["current_speech_start"]) == ("con_now", {"con_now": at})
        assert phone["speech_segments"] == {"con_now": [[at, at + 3]]}


def _talk(conn: Connection, source_id: str) -> None:
    from_us, to_us = START_US, START_US + 3_000_000
    conn.execute(
        "INSERT INTO conversations (id, source_n, state, started_us, ended_us, created_us)"
        " SELECT 'con_now', n, 'open', ?, ?, ? FROM sources WHERE id = ?",
        (from_us, to_us, from_us, source_id),
    )
    segments.put(conn, SpeechSegment("seg_now", source_id, from_us, to_us, to_us - from_us))
    segments.settle(conn, "seg_now", outcome=Outcome.TEXT, reason=None, engine="t", conversation_id="con_now")


Spans = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 3_000)), max_size=20)


@given(spans=Spans, minimum=st.integers(0, 2_000), padding=st.integers(0, 500))
def test_a_cut_covers_all_that_is_long_enough_and_repeats_nothing(
    spans: list[tuple[int, int]], minimum: int, padding: int
) -> None:
    spoken = [SpeechSegment(f"seg_{n}", SOURCE, start, start + size, size) for n, (start, size) in enumerate(spans)]
    found = cut_ranges(spoken, minimum, padding)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))
    for segment in spoken:
        covered = any(a <= segment.start_us - padding and segment.end_us + padding <= b for a, b in found)
        assert covered or segment.end_us - segment.start_us < minimum
    wanted = {
        moment
        for one in spoken
        if one.end_us - one.start_us >= minimum
        for moment in range(one.start_us - padding, one.end_us + padding)
    }
    assert sum(b - a for a, b in found) == len(wanted)
