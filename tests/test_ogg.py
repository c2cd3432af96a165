"""Pages as RFC 3533 and RFC 7845 want them, read back by FFmpeg."""

import io
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge import ogg
from omi_edge.domain import SAMPLE_RATE, Codec
from omi_edge.errors import AudioError
from omi_edge.opus import Decoder, Encoder, silence_packet


def speechlike(frames: int, codec: Codec = Codec.OPUS_20MS) -> list[bytes]:
    size = codec.frame_us * SAMPLE_RATE // 1_000_000
    times = np.arange(frames * size) / SAMPLE_RATE
    wave = (5000 * np.sin(2 * np.pi * 180 * times) * np.abs(np.sin(times * 9))).astype(np.int16)
    encoder = Encoder(codec)
    return [encoder.encode(frame) for frame in wave.reshape(-1, size)]


def crc(page: bytes | bytearray) -> int:
    """Bit by bit, as RFC 3533 §6 words it: the reference for the fast one."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def pages(data: bytes) -> list[dict[str, Any]]:
    """Read pages without help; checks each for its frame and its CRC."""
    found = []
    at = 0
    while at < len(data):
        assert data[at : at + 5] == b"OggS\0"
        count = data[at + 26]
        table = data[at + 27 : at + 27 + count]
        end = at + 27 + count + sum(table)
        page = bytearray(data[at:end])
        expected = int.from_bytes(page[22:26], "little")
        page[22:26] = bytes(4)
        assert crc(page) == expected
        packets = []
        body, size = at + 27 + count, 0
        for lacing in table:
            size += lacing
            if lacing < 255:
                packets.append(data[body : body + size])
                body, size = body + size, 0
        assert size == 0, "a packet goes on on the next page"
        found.append(
            {
                "flags": data[at + 5],
                "granule": int.from_bytes(data[at + 6 : at + 14], "little"),
                "serial": int.from_bytes(data[at + 14 : at + 18], "little"),
                "number": int.from_bytes(data[at + 18 : at + 22], "little"),
                "packets": packets,
            }
        )
        at = end
    return found


def demuxed(data: bytes) -> list[bytes]:
    with av.open(io.BytesIO(data), "r") as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize("codec", [Codec.OPUS_10MS, Codec.OPUS_20MS])
def test_ffmpeg_reads_the_same_packets_and_the_same_time(codec: Codec) -> None:
    packets = speechlike(333, codec)
    data = ogg.build(packets, codec.frame_us)
    assert demuxed(data) == packets
    with av.open(io.BytesIO(data), "r") as container:
        heard = sum(frame.samples for frame in container.decode(audio=0))
    assert heard == len(packets) * codec.frame_us * 48 // 1000 - ogg.PRE_SKIP


def test_ffmpeg_hears_what_our_decoder_hears_around_a_lost_frame() -> None:
    packets = speechlike(100)
    packets[40:42] = [b"", b""]
    decoder = Decoder(Codec.OPUS_20MS)
    ours = np.concatenate([decoder.decode(packet) for packet in packets]).astype(float)
    with av.open(io.BytesIO(ogg.build(packets, 20_000)), "r") as container:
        at_48k = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(at_48k) == 100 * 960 - ogg.PRE_SKIP
    theirs = np.concatenate([np.zeros(ogg.PRE_SKIP // 3), at_48k[::3] * 32768])
    for part in (slice(320, 40 * 320), slice(46 * 320, None)):  # FFmpeg conceals in its own way
        assert np.corrcoef(ours[part], theirs[part])[0, 1] > 0.99


@pytest.mark.parametrize(("codec", "written"), [(Codec.OPUS_10MS, b"\xb0"), (Codec.OPUS_20MS, b"\xb8")])
def test_libopus_conceals_what_is_written_for_a_lost_frame(codec: Codec, written: bytes) -> None:
    packets = speechlike(20, codec)
    ours, theirs = Decoder(codec), Decoder(codec)
    for index, packet in enumerate(packets):
        lost = index in (7, 8)
        assert np.array_equal(ours.decode(b"" if lost else packet), theirs.decode(written if lost else packet))
    assert (ours.lost, theirs.bad) == (2, 0)


def test_the_first_two_pages_are_the_headers() -> None:
    first, second, *_ = pages(ogg.build(speechlike(3), 20_000, serial=77))
    # RFC 7845 §5.1: version 1, one channel, pre-skip 120, 16000 Hz, no gain, mapping family 0
    assert first["packets"] == [b"OpusHead\x01\x01\x78\x00\x80\x3e\x00\x00\x00\x00\x00"]
    assert first["flags"] == 2
    assert second["packets"] == [b"OpusTags\x08\x00\x00\x00omi-edge\x00\x00\x00\x00"]
    assert (first["serial"], first["granule"], second["granule"]) == (77, 0, 0)


def test_pages_last_a_second_are_numbered_and_the_last_one_says_so() -> None:
    found = pages(ogg.build(speechlike(120), 20_000))
    assert [page["number"] for page in found] == [0, 1, 2, 3, 4]
    assert [page["flags"] for page in found] == [2, 0, 0, 0, 4]
    assert [page["granule"] for page in found] == [0, 0, 48_000, 96_000, 115_200]
    assert [len(page["packets"]) for page in found] == [1, 1, 50, 50, 20]


def test_a_lost_frame_keeps_its_place() -> None:
    packets = speechlike(10)
    packets[4] = b""
    found = pages(ogg.build(packets, 20_000))[2]["packets"]
    assert found[4] == b"\xb8"
    assert found[:4] + found[5:] == packets[:4] + packets[5:]


def test_a_stream_without_packets_is_whole() -> None:
    found = pages(ogg.build([], 20_000))
    assert [page["flags"] for page in found] == [2, 0, 4]
    assert found[-1]["granule"] == 0


def test_pages_come_as_the_packets_do() -> None:
    taken = 0

    def packets() -> Any:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield silence_packet(Codec.OPUS_20MS)

    made = ogg.stream(packets(), 20_000)
    for _ in range(3):
        next(made)
    assert taken <= 51


@pytest.mark.parametrize("frame_us", [0, 2_500, 60_000])
def test_another_frame_length_is_refused(frame_us: int) -> None:
    with pytest.raises(AudioError, match="10 or 20 ms"):
        ogg.build([b"\xb8"], frame_us)
    with pytest.raises(AudioError, match="10 or 20 ms"):
        ogg.length([1], frame_us)


def test_a_packet_that_no_page_holds_is_refused() -> None:
    with pytest.raises(AudioError, match="none of Opus"):
        ogg.build([bytes(255 * 255)], 20_000)


@given(
    st.lists(
        st.binary(max_size=200) | st.integers(0, 3000).map(bytes) | st.sampled_from([254, 255, 256, 510]).map(bytes),
        max_size=130,
    ),
    st.sampled_from([10_000, 20_000]),
    st.integers(0, 2**32 - 1),
)
def test_any_packets_come_back_and_the_length_is_known_before(packets: list[bytes], frame_us: int, serial: int) -> None:
    data = ogg.build(packets, frame_us, serial=serial)
    assert data == ogg.build(packets, frame_us, serial=serial)
    assert ogg.length([len(packet) for packet in packets], frame_us) == len(data)
    found = pages(data)
    lost = b"\xb0" if frame_us == 10_000 else b"\xb8"
    assert [packet for page in found[2:] for packet in page["packets"]] == [packet or lost for packet in packets]
    assert found[-1]["granule"] == len(packets) * frame_us * 48 // 1000
    assert {page["serial"] for page in found} == {serial}
