"""Events of the Wyoming protocol: what the real package writes is read, what strangers write is bounded."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event as TheirEvent
from wyoming.event import read_event as their_read
from wyoming.event import write_event as their_write
from wyoming.vad import VoiceStarted

from omi_edge.errors import BadInput, ConfigError
from omi_edge.wyoming import (
    LINE_BYTES,
    PAYLOAD_BYTES,
    AudioShape,
    Event,
    Voice,
    address_of,
    encode_event,
    fields,
    is_near,
    place_of,
    read_event,
)


def read_all(data: bytes, **limits: int) -> list[Event]:
    """Return the events of a connection that sends ``data`` and closes."""

    async def work() -> list[Event]:
        reader = asyncio.StreamReader(limit=LINE_BYTES)
        reader.feed_data(data)
        reader.feed_eof()
        found = []
        while (event := await read_event(reader, **limits)) is not None:
            found.append(event)
        return found

    return asyncio.run(work())


def theirs(*events: TheirEvent) -> bytes:
    out = io.BytesIO()
    for event in events:
        their_write(event, out)
    return out.getvalue()


def test_what_the_package_writes_is_read() -> None:
    told = [
        Transcribe(name="base", language="de").event(),
        AudioStart(16_000, 2, 1).event(),
        AudioChunk(16_000, 2, 1, b"\1\2" * 500, timestamp=3).event(),
        VoiceStarted(120).event(),
        AudioStop().event(),
        Transcript("Grüße").event(),
    ]
    found = read_all(theirs(*told))
    assert [one.type for one in found] == [one.type for one in told]
    assert [one.data for one in found] == [one.data for one in told]
    assert found[2].payload == b"\1\2" * 500
    assert fields(found[1], AudioShape) == AudioShape(16_000, 2, 1)
    assert fields(found[3], Voice).timestamp == 120


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), st.dictionaries(st.text(), json_values, max_size=4), st.binary(max_size=200))
def test_what_is_written_the_package_and_we_read(kind: str, data: dict[str, Any], payload: bytes) -> None:
    sent = encode_event(Event(kind, data, payload))
    assert read_all(sent) == [Event(kind, data, payload)]
    got = their_read(io.BytesIO(sent))
    assert got is not None
    assert (got.type, got.data, got.payload or b"") == (kind, data, payload)


@given(st.binary(max_size=300))
def test_noise_is_refused_or_waits_for_nothing(noise: bytes) -> None:
    try:
        read_all(noise)
    except BadInput as error:
        assert str(error)


heads = st.fixed_dictionaries(
    {},
    optional={
        "type": json_values,
        "data": json_values,
        "data_length": json_values,
        "payload_length": json_values,
        "version": json_values,
    },
)


@given(heads, st.binary(max_size=40))
def test_a_head_of_any_values_is_read_or_refused(head: dict[str, Any], rest: bytes) -> None:
    try:
        found = read_all(json.dumps(head).encode() + b"\n" + rest)
    except BadInput:
        return
    assert all(isinstance(event.type, str) and isinstance(event.data, dict) for event in found)


@given(st.data())
def test_a_stream_that_is_cut_anywhere_is_whole_events_and_an_error(data: st.DataObject) -> None:
    events = [Event("transcribe", {"name": "x"}), Event("audio-chunk", {"rate": 1}, b"\0" * 50), Event("audio-stop")]
    whole = b"".join(map(encode_event, events))
    ends = [len(b"".join(map(encode_event, events[:n]))) for n in range(len(events) + 1)]
    cut = data.draw(st.integers(0, len(whole)))
    if cut in ends:
        assert read_all(whole[:cut]) == events[: ends.index(cut)]
    else:
        with pytest.raises(BadInput, match="in the middle"):
            read_all(whole[:cut])


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        (b"[]\n", "no event"),
        (b'"type"\n', "no event"),
        (b"\xff\xfe\n", "no event"),
        (b'{"type": 5}\n', "no event"),
        (b'{"type": "a", "data": []}\n', "no event"),
        (b'{"type": "a", "payload_length": -1}\n', "no event"),
        (b'{"type": "a", "payload_length": "5"}\n12345', "no event"),
        (b'{"type": "a", "data_length": 2}\n[]', "no event"),
        (b"[" * 20_000 + b"\n", "no event"),
        (b'{"type": "a", "data": ' + b'{"a":' * 9000 + b"1" + b"}" * 9001 + b"\n", "no event"),
        (b'{"type": "a", "data_length": 99999999999}\n', "must not have more than 65536 bytes"),
        (b'{"type": "a", "payload_length": 4294967296}\n', f"must not have more than {PAYLOAD_BYTES} bytes"),
        (b"x" * (LINE_BYTES + 9), "first line"),
        (b"x" * (LINE_BYTES + 9) + b"\n", "first line"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_event_or_too_large(sent: bytes, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        read_all(sent)


def test_fields_that_are_missing_or_wrong() -> None:
    for data in ({}, {"rate": "16000", "width": 2, "channels": 1}, {"rate": None, "width": 2, "channels": 1}):
        with pytest.raises(BadInput, match="audio-start"):
            fields(Event("audio-start", data), AudioShape)
    wrong: tuple[object, ...] = (-1, 1e12, "5", [])
    for at in wrong:
        with pytest.raises(BadInput, match="voice-started"):
            fields(Event("voice-started", {"timestamp": at}), Voice)


@pytest.mark.parametrize(
    ("uri", "host", "port", "path"),
    [
        ("tcp://192.168.1.20:10300", "192.168.1.20", 10300, ""),
        ("tcp://10.0.0.1", "10.0.0.1", 10300, ""),
        ("tcp://localhost:5/", "127.0.0.1", 5, ""),
        ("tcp://[::1]:5", "::1", 5, ""),
        ("tcp://[fd12::7]:5", "fd12::7", 5, ""),
        ("tcp://[fe80::1%25eth0]:5", "fe80::1%eth0", 5, ""),
        ("unix:///run/a b.sock", "", 0, "/run/a b.sock"),
    ],
)
def test_servers_of_the_lan(uri: str, host: str, port: int, path: str) -> None:
    place = place_of(uri)
    assert (place.host, place.port, place.path) == (host, port, path)


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("tcp://8.8.8.8:10300", "not on your LAN"),
        ("tcp://172.32.0.1:10300", "not on your LAN"),
        ("tcp://100.64.0.1:10300", "not on your LAN"),
        ("tcp://0.0.0.0:10300", "not on your LAN"),
        ("tcp://255.255.255.255:10300", "not on your LAN"),
        ("tcp://224.0.0.251:10300", "not on your LAN"),
        ("tcp://[2001:4860:4860::8888]:10300", "not on your LAN"),
        ("tcp://[::ffff:8.8.8.8]:10300", "not on your LAN"),
        ("tcp://[64:ff9b::a00:1]:10300", "not on your LAN"),
        ("tcp://assistant.example:10300", "by its address"),
        ("tcp://homeassistant.local:10300", "by its address"),
        ("tcp://2130706433:10300", "by its address"),
        ("tcp://127.1:10300", "by its address"),
        ("tcp://:10300", "must be an address like"),
        ("tcp://127.0.0.1:99999", "must be an address like"),
        ("tcp://me:x@127.0.0.1:1", "must be an address like"),
        ("tcp://127.0.0.1:1/path", "must be an address like"),
        ("http://127.0.0.1:1", "must be an address like"),
        ("unix://relative", "must be an address like"),
        ("stdio://", "must be an address like"),
        ("", "must be an address like"),
        ("tcp://[::1", "must be an address like"),
    ],
)
def test_anywhere_else_is_refused(uri: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        place_of(uri)


def test_mapped_addresses_are_what_they_map() -> None:
    for text, near in (("::ffff:192.168.0.1", True), ("::ffff:1.1.1.1", False), ("fe80::1%eth0", True)):
        address = address_of(text)
        assert address is not None
        assert is_near(address) is near
