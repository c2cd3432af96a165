"""Audio by seconds and by bytes: exact lengths, exact parts, true positions."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.domain import SAMPLE_RATE, AudioChunk, ChunkKind, Codec
from omi_edge.errors import AudioError, NotFound
from omi_edge.opus import Decoder
from omi_edge.store import audio as store_audio
from omi_edge.web import timeline
from omi_edge.web.audio import _decode
from tests.web.conftest import BEGAN_US, BEGIN_S, CONVERSATION, SOURCE, Site, stored

PATH = f"/v1/conversations/{CONVERSATION}/audio"
HEADER = 44


def _decoded_ogg(data: bytes) -> npt.NDArray[np.int16]:
    with av.open(io.BytesIO(data), "r") as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.int16)


async def _get(site: Site, query: dict[str, str], **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    async with site.tcp.get(PATH, params=query, headers={**site.bearer, **headers}) as response:
        return response.status, response.headers, await response.read()


@pytest.mark.parametrize("form", ["ogg", "wav"])
@pytest.mark.parametrize("silence", ["keep", "drop"])
@pytest.mark.parametrize("span", [{}, {"from": "2.013", "to": "13.5"}])
async def test_every_part_equals_the_slice_of_the_whole(
    site: Site, form: str, silence: str, span: dict[str, str]
) -> None:
    query = {"format": form, "silence": silence, **span}
    status, headers, whole = await _get(site, query)
    total = len(whole)
    assert (status, headers["Content-Length"], headers["Accept-Ranges"]) == (200, str(total), "bytes")
    for wanted, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=0-43", 0, 43),
        ("bytes=40-50", 40, 50),
        (f"bytes={total // 2}-{total // 2 + 998}", total // 2, total // 2 + 998),
        (f"bytes={total // 3}-", total // 3, total - 1),
        ("bytes=-7", total - 7, total - 1),
        (f"bytes=-{total * 2}", 0, total - 1),
        (f"bytes=100-{total * 2}", 100, total - 1),
    ):
        status, headers, part = await _get(site, query, Range=wanted)
        assert status == 206, wanted
        assert headers["Content-Range"] == f"bytes {first}-{last}/{total}"
        assert part == whole[first : last + 1], wanted


async def test_a_range_behind_the_end_cannot_be_served(site: Site) -> None:
    _, _, whole = await _get(site, {})
    status, headers, _ = await _get(site, {}, Range=f"bytes={len(whole)}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
    assert headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize("wanted", ["bytes=5-2", "bytes=", "bytes=-", "lines=1-2", "bytes=0-1,4-5", "bytes=a-b"])
async def test_a_range_we_do_not_serve_gives_the_whole(site: Site, wanted: str) -> None:
    _, _, whole = await _get(site, {})
    status, _, body = await _get(site, {}, Range=wanted)
    assert (status, body) == (200, whole)


async def test_a_part_of_an_older_whole_is_not_mixed_in(site: Site) -> None:
    _, headers, whole = await _get(site, {})
    tag = headers["ETag"]
    status, _, part = await _get(site, {}, **{"Range": "bytes=3-9", "If-Range": tag})
    assert (status, part) == (206, whole[3:10])
    status, _, body = await _get(site, {}, **{"Range": "bytes=3-9", "If-Range": '"other"'})
    assert (status, body) == (200, whole)
    _, other, _ = await _get(site, {"silence": "keep"})
    assert other["ETag"] != tag


async def test_head_tells_the_length_alone(site: Site) -> None:
    _, _, whole = await _get(site, {})
    async with site.tcp.head(PATH, headers={**site.bearer, "Range": "bytes=0-9"}) as response:
        assert (response.status, response.headers["Content-Length"]) == (200, str(len(whole)))
        assert await response.read() == b""
    assert (await site.rows())[-1][1:] == ("audio.read", "ok")


async def test_the_wav_header_tells_the_truth(site: Site) -> None:
    _, headers, body = await _get(site, {"format": "wav"})
    assert headers["Content-Type"] == "audio/wav"
    riff, size, wave, fmt, _, pcm, channels, rate, per_second, align, bits, data, length = struct.unpack(
        "<4sI4s4sIHHIIHH4sI", body[:HEADER]
    )
    assert (riff, wave, fmt, data) == (b"RIFF", b"WAVE", b"fmt ", b"data")
    assert (pcm, channels, rate, per_second, align, bits) == (1, 1, 16_000, 32_000, 2, 16)
    assert (size, length) == (len(body) - 8, len(body) - HEADER)


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ({"silence": "drop"}, 5.0 + 7.0),
        ({"silence": "keep"}, 18.0),
        ({"silence": "keep", "from": "6", "to": "10"}, 4.0),
        ({"silence": "drop", "from": "0.5", "to": "1.25"}, 0.75),
        ({"silence": "drop", "from": "4", "to": "12"}, 1.0 + 1.0),
        ({"silence": "keep", "from": "17", "to": "500"}, 1.0),
    ],
)
async def test_it_plays_as_long_as_was_asked(site: Site, query: dict[str, str], seconds: float) -> None:
    _, _, wav = await _get(site, {"format": "wav", **query})
    assert (len(wav) - HEADER) / 32_000 == seconds
    _, _, ogg = await _get(site, query)
    # Ogg ends with a whole packet; the encoder's look-ahead of 2.5 ms is left out at its head
    assert len(_decoded_ogg(ogg)) / SAMPLE_RATE == pytest.approx(seconds, abs=0.021)


async def test_kept_silence_makes_positions_true(site: Site) -> None:
    """What is heard at second 14 of the true timeline is what was said there, and the hole before it is silent."""
    _, _, whole = await _get(site, {"format": "wav", "silence": "keep"})
    _, _, part = await _get(site, {"format": "wav", "silence": "keep", "from": "14", "to": "15"})
    pcm, cut = np.frombuffer(whole[HEADER:], "<i2"), np.frombuffer(part[HEADER:], "<i2")
    heard = pcm[14 * SAMPLE_RATE : 15 * SAMPLE_RATE]
    assert np.abs(heard.astype(int) - cut).max() <= 2  # two decoders, warmed up differently
    assert np.abs(heard).max() > 4000
    hole = pcm[round(7.1 * SAMPLE_RATE) : round(10.9 * SAMPLE_RATE)]
    assert np.abs(hole).max() == 0


async def test_ogg_and_wav_sound_alike(site: Site) -> None:
    query = {"from": "1.5", "to": "4.5"}
    _, _, wav = await _get(site, {"format": "wav", **query})
    _, _, ogg = await _get(site, query)
    pcm, decoded = np.frombuffer(wav[HEADER:], "<i2").astype(float), _decoded_ogg(ogg).astype(float)
    shift = 40  # the look-ahead, 2.5 ms
    count = min(len(pcm) - shift, len(decoded))
    difference = pcm[shift : shift + count] - decoded[:count]
    assert np.sqrt((difference**2).mean()) < 0.02 * np.sqrt((pcm**2).mean())


async def test_ogg_holds_the_very_packets(site: Site, packets: list[bytes]) -> None:
    _, headers, ogg = await _get(site, {"from": "0", "to": "2"})
    assert headers["Content-Type"] == "audio/ogg; codecs=opus"
    for packet in packets[50:150]:
        assert packet in ogg


async def test_blocks_join_without_a_seam(packets: list[bytes]) -> None:
    """A decoder that was warmed up by 50 frames makes what one decoder for all would have made."""
    decoder = Decoder(Codec.OPUS_20MS)
    one = np.concatenate([decoder.decode(packet) for packet in packets])
    marked = [(packet, False) for packet in packets]
    fresh = np.frombuffer(_decode(Codec.OPUS_20MS, marked[450:500], marked[500:700]), "<i2")
    assert np.abs(one[500 * 320 : 700 * 320].astype(int) - fresh).max() <= 1


@pytest.mark.parametrize(
    ("query", "field"), [({"from": "18"}, "from"), ({"from": "5", "to": "5"}, "from"), ({"to": "-1"}, "to")]
)
async def test_a_stretch_that_is_none_is_refused(site: Site, query: dict[str, str], field: str) -> None:
    async with site.tcp.get(PATH, params=query, headers=site.bearer) as response:
        assert response.status == 400
        assert (await response.json())["field"] == field


async def test_a_stretch_without_audio_is_not_found(site: Site) -> None:
    status, _, _ = await _get(site, {"from": "7.5", "to": "10"})
    assert status == 404


async def test_silence_cleared_away_meanwhile_ends_the_answer(site: Site) -> None:
    db = site.controls.opened
    plan = await timeline.plan(db, SOURCE, BEGAN_US, BEGAN_US + 8_000_000, keep_silence=True)
    await db.write(lambda conn: store_audio.drop_silence(conn, BEGAN_US + 3600_000_000))
    with pytest.raises(AudioError):
        async for _ in plan.packets(db):
            pass


async def test_legacy_audio_is_played_as_wav(site: Site) -> None:
    chunk = AudioChunk(SOURCE, BEGAN_US + 8_000_000, Codec.PCM16, (b"\x10\x00" * 160,) * 100)
    await site.controls.opened.write(lambda conn: store_audio.put(conn, chunk))
    query = {"from": "8", "to": "9"}
    status, _, _ = await _get(site, query)
    assert status == 422
    _, _, wav = await _get(site, {"format": "wav", **query})
    assert wav[HEADER:] == b"\x10\x00" * SAMPLE_RATE


class _Memory:
    """Stands for the vault: the planner only reads chunks."""

    def __init__(self, chunks: list[AudioChunk]) -> None:
        self._chunks = chunks

    def between(self, start_us: int, end_us: int, silence: bool) -> list[AudioChunk]:
        return [
            chunk
            for chunk in self._chunks
            if chunk.start_us < end_us and chunk.end_us > start_us and (silence or chunk.kind is ChunkKind.HEARD)
        ]


@given(
    gaps=st.lists(st.integers(1, 9_000_000), min_size=1, max_size=12),
    lengths=st.lists(st.integers(1, 100), min_size=12, max_size=12),
    begin=st.integers(-1_000_000, 20_000_000),
    length=st.integers(1_000, 60_000_000),
)
def test_the_true_timeline_stays_true(gaps: list[int], lengths: list[int], begin: int, length: int) -> None:
    """Whatever is stored: it plays exactly as long as asked, and each frame is where it was heard, to half a frame."""
    frame_us = Codec.OPUS_20MS.frame_us
    chunks, at = [], BEGAN_US
    for number, (gap, count) in enumerate(zip(gaps, lengths, strict=False)):
        at += gap
        chunks.append(AudioChunk(SOURCE, at, Codec.OPUS_20MS, (b"\xb8xx",) * count, id=number + 1))
        at += count * frame_us
    from_us, to_us = BEGAN_US + begin, BEGAN_US + begin + length
    planner = timeline._Planner(SOURCE, from_us, to_us, True)
    for chunk in _Memory(chunks).between(from_us - timeline.SETTLE_US, to_us, silence=True):
        planner.add(chunk)
    try:
        plan = planner.finished()
    except NotFound:
        assert not _Memory(chunks).between(from_us, to_us, silence=True)
        return
    assert sum(piece.count for piece in plan.pieces) == len(plan.sizes)
    assert abs(plan.duration_us - length) <= frame_us // 2
    position = -plan.settle
    for piece in plan.pieces:
        if piece.chunk_id and position >= 0:
            heard_us = from_us - plan.lead_us + position * frame_us
            assert abs(piece.at_us + piece.skip * frame_us - heard_us) <= frame_us // 2
        position += piece.count


def test_the_recording_of_the_fixture_has_a_hole(packets: list[bytes]) -> None:
    chunks = stored(packets)
    assert BEGIN_S == 1.0
    assert [chunk.kind for chunk in chunks].count(ChunkKind.SILENCE) == 1
    assert chunks[4].start_us - chunks[3].end_us == 4_000_000
