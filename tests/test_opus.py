"""Packets to PCM and back: exact frame lengths whatever comes, the CV1's own settings, libopus wherever it is."""

import ctypes
import ctypes.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge import opus
from omi_edge.domain import SAMPLE_RATE, Codec
from omi_edge.errors import AudioError
from omi_edge.opus import Decoder, Encoder, silence_packet

OPUS = (Codec.OPUS_10MS, Codec.OPUS_20MS)
LOOK_AHEAD = 40
"""Samples by which decoded audio is late (protocol dossier §7)."""


def samples_per_frame(codec: Codec) -> int:
    return codec.frame_us * SAMPLE_RATE // 1_000_000


def tone(frames: int, codec: Codec) -> npt.NDArray[np.int16]:
    times = np.arange(frames * samples_per_frame(codec)) / SAMPLE_RATE
    wave = 6000 * np.sin(2 * np.pi * 220 * times) + 2000 * np.sin(2 * np.pi * 1370 * times)
    return np.asarray(wave, np.int16)


def encoded(frames: int, codec: Codec = Codec.OPUS_20MS) -> list[bytes]:
    encoder = Encoder(codec)
    return [encoder.encode(frame) for frame in tone(frames, codec).reshape(-1, samples_per_frame(codec))]


@pytest.mark.parametrize("codec", OPUS)
def test_what_was_encoded_is_heard_again(codec: Codec) -> None:
    decoder = Decoder(codec)
    heard = np.concatenate([decoder.decode(packet) for packet in encoded(50, codec)])
    said = tone(50, codec)[: -LOOK_AHEAD or None].astype(float)
    error = said - heard[LOOK_AHEAD:]
    assert heard.dtype == np.int16
    assert np.sum(said**2) > 30 * np.sum(error**2)  # about 15 dB: the waveform itself, not only its spectrum
    assert (decoder.lost, decoder.bad) == (0, 0)


@pytest.mark.parametrize(("codec", "toc"), [(Codec.OPUS_20MS, 0xB8), (Codec.OPUS_10MS, 0xB0)])
def test_packets_are_a_stock_pendants(codec: Codec, toc: int) -> None:
    loud = np.random.default_rng(1).integers(-20_000, 20_000, (50, samples_per_frame(codec)), dtype=np.int16)
    encoder = Encoder(codec)
    packets = [encoder.encode(frame) for frame in loud]
    assert {packet[0] for packet in packets} == {toc}
    assert max(map(len, packets)) <= 160


@pytest.mark.parametrize("codec", OPUS)
def test_the_encoder_has_the_settings_of_the_cv1(codec: Codec) -> None:
    settings = Encoder(codec)._opus
    assert (settings.bitrate, settings.vbr, settings.vbr_constraint) == (32_000, 1, 0)
    assert (settings.complexity, settings.lsb_depth, settings.inband_fec) == (3, 16, 0)
    assert settings.lookahead == LOOK_AHEAD


def test_the_bitrate_can_be_chosen() -> None:
    noise = np.random.default_rng(1).integers(-8000, 8000, (50, 320), dtype=np.int16)
    low, high = Encoder(bitrate=16_000), Encoder(bitrate=32_000)
    assert sum(len(low.encode(f)) for f in noise) < 0.7 * sum(len(high.encode(f)) for f in noise)


@pytest.mark.parametrize(
    "frame", [np.zeros(160, np.int16), np.zeros((1, 320), np.int16), np.zeros(320, np.float32), np.zeros(0, np.int16)]
)
def test_another_frame_is_refused(frame: npt.NDArray[np.int16]) -> None:
    with pytest.raises(AudioError, match="320 samples of int16"):
        Encoder().encode(frame)


def test_a_view_with_strides_is_encoded_as_what_it_shows() -> None:
    stereo = np.repeat(tone(1, Codec.OPUS_20MS)[:, None], 2, axis=1)
    assert Encoder().encode(stereo[:, 0]) == encoded(1)[0]


def test_a_legacy_codec_cannot_be_encoded() -> None:
    with pytest.raises(AudioError, match="PCM16"):
        Encoder(Codec.PCM16)


@pytest.mark.parametrize("codec", OPUS)
def test_silence_is_what_the_encoder_makes_of_it(codec: Codec) -> None:
    encoder, decoder = Encoder(codec), Decoder(codec)
    for _ in range(3):
        assert encoder.encode(np.zeros(samples_per_frame(codec), np.int16)) == silence_packet(codec)
        assert not decoder.decode(silence_packet(codec)).any()


@pytest.mark.parametrize("codec", Codec)
def test_silence_of_every_codec_is_one_frame_of_zeros(codec: Codec) -> None:
    decoder = Decoder(codec)
    pcm = decoder.decode(silence_packet(codec))
    assert pcm.shape == (samples_per_frame(codec),)
    assert not pcm.any()
    assert decoder.bad == 0


@pytest.mark.parametrize("codec", OPUS)
def test_a_lost_frame_is_concealed_and_counted(codec: Codec) -> None:
    decoder = Decoder(codec)
    for packet in encoded(10, codec):
        decoder.decode(packet)
    guess = decoder.decode(b"")
    assert guess.shape == (samples_per_frame(codec),)
    assert np.abs(guess).max() > 1000  # goes on, not silence
    assert (decoder.lost, decoder.bad) == (1, 0)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(encoded(1, Codec.OPUS_10MS)[0], id="half as long"),
        pytest.param(b"\xb9" + bytes(40), id="two frames"),
        pytest.param(b"\x18" + bytes(40), id="60 ms of SILK"),
        pytest.param(b"\xbb\x41\xff\xff", id="padding longer than the packet"),
        pytest.param(b"\xbb\x00", id="no frames"),
        pytest.param(b"\xb9", id="half of nothing"),
    ],
)
def test_a_packet_of_another_length_counts_as_bad_and_as_lost_to_the_stream(packet: bytes) -> None:
    decoder, reference = Decoder(Codec.OPUS_20MS), Decoder(Codec.OPUS_20MS)
    before, after = encoded(10)[:5], encoded(10)[5:]
    for ours, theirs in zip([*before, packet, *after], [*before, b"", *after], strict=True):
        assert np.array_equal(decoder.decode(ours), reference.decode(theirs))
    assert (decoder.bad, decoder.lost) == (1, 0)


def test_stereo_is_heard_as_mono() -> None:
    decoder = Decoder(Codec.OPUS_20MS)
    pcm = decoder.decode(b"\xbc" + b"\xff\xfe")
    assert pcm.shape == (320,)


@given(st.sampled_from(list(Codec)), st.lists(st.binary(max_size=600), max_size=5))
def test_no_packet_upsets_the_decoder(codec: Codec, packets: list[bytes]) -> None:
    decoder = Decoder(codec)
    for packet in packets:
        pcm = decoder.decode(packet)
        assert pcm.shape == (samples_per_frame(codec),)
        assert pcm.dtype == np.int16


@given(st.binary(min_size=1, max_size=160), st.integers(0, 2))
def test_mutated_packets_give_one_frame(noise: bytes, where: int) -> None:
    decoder = Decoder(Codec.OPUS_20MS)
    packet = bytearray(encoded(1)[0])
    packet[1 + where : 1 + where + len(noise)] = noise
    assert decoder.decode(bytes(packet)).shape == (320,)


def test_frames_do_not_share_memory() -> None:
    decoder = Decoder(Codec.OPUS_20MS)
    first, *rest = encoded(5)
    kept = decoder.decode(first)
    copy = kept.copy()
    for packet in rest:
        decoder.decode(packet)
    assert np.array_equal(kept, copy)


def test_reset_makes_a_fresh_decoder() -> None:
    used = Decoder(Codec.OPUS_20MS)
    packets = encoded(20)
    for packet in packets[:10]:
        used.decode(packet)
    used.reset()
    fresh = Decoder(Codec.OPUS_20MS)
    for packet in packets[10:]:
        assert np.array_equal(used.decode(packet), fresh.decode(packet))


class TestLegacy:
    def test_pcm_is_taken_as_it_is(self) -> None:
        wave = tone(1, Codec.PCM16)
        assert np.array_equal(Decoder(Codec.PCM16).decode(wave.astype("<i2").tobytes()), wave)

    @pytest.mark.parametrize("size", [0, 1, 318, 319, 321, 322])
    def test_pcm_of_another_length_is_silence(self, size: int) -> None:
        decoder = Decoder(Codec.PCM16)
        assert not decoder.decode(b"\x11" * size).any()
        assert decoder.bad + decoder.lost == 1

    def test_pcm8_is_eight_bits_or_sixteen_by_its_length(self) -> None:
        eight = Decoder(Codec.PCM8).decode(bytes([128, 129]) * 80)
        assert eight[:5].tolist() == [0, 128, 256, 128, 0]
        sixteen = Decoder(Codec.PCM8).decode(np.tile(np.array([0, 1000], "<i2"), 80).tobytes())
        assert sixteen[:5].tolist() == [0, 500, 1000, 500, 0]

    @pytest.mark.parametrize(
        ("code", "value"),
        # ITU-T G.711 table 2a/2b: decision values at the ends and in the middle of the segments, scaled to 16 bits
        [(0xFF, 0), (0x7F, 0), (0xFE, 8), (0x7E, -8), (0x80, 32124), (0x00, -32124), (0xEF, 132), (0x8F, 16764)],
    )
    def test_mulaw(self, code: int, value: int) -> None:
        assert set(Decoder(Codec.MULAW16).decode(bytes([code]) * 160).tolist()) == {value}

    def test_eight_kilohertz_is_doubled(self) -> None:
        assert Decoder(Codec.MULAW8).decode(bytes([0xFE]) * 160).tolist() == [8] * 320


class TestLibrary:
    def test_it_is_found_inside_pyav_when_the_system_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
        monkeypatch.setattr(sys, "platform", "linux")
        try:
            path = opus.libopus_path()
        except AudioError:
            pytest.skip("this build of PyAV carries no libopus")
        assert "av" in Path(path).parent.name
        assert ctypes.CDLL(path).opus_decoder_create

    def test_it_works_with_pyavs_alone_and_does_not_load_pyav(self) -> None:
        code = (
            "import ctypes.util, sys\n"
            "ctypes.util.find_library = lambda name: None\n"
            "from omi_edge import opus\n"
            "from omi_edge.domain import Codec\n"
            "from omi_edge.errors import AudioError\n"
            "try:\n    opus.libopus_path()\n"
            "except AudioError:\n    sys.exit(77)\n"
            "packet = opus.Encoder().encode(opus.np.zeros(320, 'int16'))\n"
            "assert not opus.Decoder(Codec.OPUS_20MS).decode(packet).any()\n"
            "assert packet == opus.silence_packet(Codec.OPUS_20MS)\n"
            "assert 'av' not in sys.modules\n"
        )
        result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
        if result.returncode == 77:
            pytest.skip("this build of PyAV carries no libopus")
        assert (result.returncode, result.stderr) == (0, "")

    def test_without_any_the_error_says_how_to_get_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(opus, "_candidates", lambda: iter(["/nonexistent/libopus.so"]))
        with pytest.raises(AudioError, match="apt install libopus0"):
            opus.libopus_path()

    def test_the_linkers_search_is_left_as_it_was(self) -> None:
        Decoder(Codec.OPUS_20MS)
        assert ctypes.util.find_library.__module__ == "ctypes.util"
