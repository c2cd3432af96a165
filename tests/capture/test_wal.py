"""Omi's `.bin` recordings: what their names and frames say, and what a cut or broken one still gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.capture.wal import FRAME_LIMIT, FrameCutter, WalName, WalRecording, framed, is_wal, parse_name
from omi_edge.domain import SAMPLE_RATE, Codec
from omi_edge.errors import AudioError
from omi_edge.opus import Encoder

START_S = 1_795_176_000
NAME = f"audio_aabbccddeeff_opus_fs320_16000_1_fs320_{START_S}.bin"
Frames = st.lists(st.binary(min_size=1, max_size=FRAME_LIMIT), max_size=20)


def packets(codec: Codec, seconds: float = 1.0) -> list[bytes]:
    encoder = Encoder(codec)
    samples = codec.frame_us * SAMPLE_RATE // 1_000_000
    at = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = (9000 * np.sin(2 * np.pi * 440 * at)).astype(np.int16)
    return [encoder.encode(frame) for frame in tone.reshape(-1, samples)]


def write(path: Path, frames: list[bytes]) -> Path:
    path.write_bytes(b"".join(map(framed, frames)))
    return path


@given(frames=Frames, data=st.data())
def test_wherever_a_file_is_cut_the_whole_frames_before_are_there(frames: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(framed, frames))
    cut = data.draw(st.integers(0, len(whole)))
    steps = data.draw(st.lists(st.integers(1, 400), max_size=20))
    cutter, found, at = FrameCutter(), [], 0
    for step in [*steps, len(whole)]:  # the pieces in which it comes do not matter
        found += cutter.feed(whole[at : min(cut, at + step)])
        at = min(cut, at + step)
    ends = np.cumsum([0, *(4 + len(frame) for frame in frames)])
    count = int(np.searchsorted(ends, cut, side="right")) - 1
    assert found == frames[:count]
    assert not cutter.broken
    assert cutter.rest == cut - ends[count]


@given(pieces=st.lists(st.binary(max_size=5000), max_size=5))
def test_no_bytes_raise_or_pile_up(pieces: list[bytes]) -> None:
    cutter = FrameCutter()
    for piece in pieces:
        for frame in cutter.feed(piece):
            assert 0 < len(frame) <= FRAME_LIMIT
        assert cutter.rest < 4 + FRAME_LIMIT
    if cutter.broken:
        assert cutter.feed(framed(b"more")) == []


@given(data=st.binary(max_size=3000), named=st.booleans())
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, named: bool) -> None:
    path = tmp_path_factory.mktemp("any") / (NAME if named else "any.bin")
    path.write_bytes(data)
    try:
        recording = WalRecording(path)
    except AudioError as error:
        assert ". " in str(error) or ": " in str(error)  # cause and cure
    else:
        frames = list(recording.frames())
        assert frames
        assert b"".join(map(framed, frames)) == data or recording.damage or b"\0\0\0\0" in data
        assert all(len(pcm) == recording.codec.frame_us * SAMPLE_RATE // 1_000_000 for pcm in recording)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (NAME, WalName("aabbccddeeff", Codec.OPUS_20MS, START_S * 1_000_000)),
        ("audio_ab12_opus_16000_1_fs160_1795176000.bin", WalName("ab12", Codec.OPUS_10MS, START_S * 1_000_000)),
        ("audio_AB12_opus_16000_1_fs320_1795176000.BIN", WalName("ab12", Codec.OPUS_20MS, START_S * 1_000_000)),
        ("audio_ab12_pcm16_16000_1_fs160_0.bin", WalName("ab12", Codec.PCM16, None)),
        ("audio_ab12_mulaw8_8000_1_fs160_9999999999.bin", WalName("ab12", Codec.MULAW8, None)),
        ("audio_ab12_opus_16000_1_fs160_1795176000 (1).bin", WalName("ab12", Codec.OPUS_10MS, START_S * 1_000_000)),
        ("audio_ab12_aac_16000_1_fs160_1795176000.bin", None),
        ("audio_ab12_opus_16000_1_fs480_1795176000.bin", None),
        ("firmware.bin", None),
    ],
)
def test_a_name_says_whose_it_is_what_it_holds_and_when_it_began(name: str, expected: WalName | None) -> None:
    assert parse_name(name) == expected


@given(st.text(max_size=80))
def test_any_name_is_taken(name: str) -> None:
    assert parse_name(name) is None or name.lower().startswith("audio_")
    found = parse_name(f"audio_{name}.bin")
    assert found is None or found.device in name.lower()


@pytest.mark.parametrize("codec", [Codec.OPUS_10MS, Codec.OPUS_20MS])
@pytest.mark.parametrize("name", [NAME, NAME.replace("opus_fs320", "opus").replace("fs320", "fs160"), "unnamed.bin"])
def test_the_frames_tell_how_long_they_are(tmp_path: Path, codec: Codec, name: str) -> None:
    made = packets(codec)
    recording = WalRecording(write(tmp_path / name, made))
    assert recording.frame_codec is recording.codec is codec  # 20 ms is never read as 10, whatever the name says
    assert list(recording.frames()) == made
    assert recording.info.seconds == pytest.approx(1.0)
    assert recording.damage is None
    pcm = np.concatenate(list(recording))
    loudest = np.argmax(np.abs(np.fft.rfft(pcm.astype(float))))
    assert loudest == pytest.approx(440, abs=2)


def test_a_legacy_codec_is_read_as_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "audio_ab_pcm16_16000_1_fs160_1795176000.bin", [bytes(320), b"\1\0" * 160])
    recording = WalRecording(path)
    assert recording.frame_codec is None
    assert np.array_equal(np.concatenate(list(recording)), np.repeat([0, 1], 160))
    assert recording.info.seconds == pytest.approx(0.02)


def test_a_cut_file_keeps_its_whole_frames_and_says_so(tmp_path: Path) -> None:
    made = packets(Codec.OPUS_20MS)
    path = write(tmp_path / NAME, made)
    path.write_bytes(path.read_bytes()[:-1])
    recording = WalRecording(path)
    assert recording.damage == "the file breaks off after 0.98 s."
    assert list(recording.frames()) == made[:-1]
    path.write_bytes(b"".join(map(framed, made)) + b"\xff" * 100)
    assert "no longer frames" in (WalRecording(path).damage or "")


@pytest.mark.parametrize("data", [b"", b"\0" * 40, b"these are words and no frames at all", b"\1\0"])
def test_what_is_none_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / NAME
    path.write_bytes(data)
    with pytest.raises(AudioError):
        WalRecording(path)


def test_without_a_name_frames_that_tell_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="name"):
        WalRecording(write(tmp_path / "x.bin", [bytes(320)] * 3))


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    made = packets(Codec.OPUS_20MS)
    one, same = write(tmp_path / NAME, made), write(tmp_path / "renamed.bin", made)
    cut = tmp_path / "cut.bin"
    cut.write_bytes(one.read_bytes() + b"\x05\0")  # half a length more: the same frames
    other = write(tmp_path / "other.bin", made[:-1])
    digests = [WalRecording(path).digest() for path in (one, same, cut, other)]
    assert digests[0] == digests[1] == digests[2] != digests[3]
    assert is_wal(one)
    assert not is_wal(tmp_path / "talk.wav")
