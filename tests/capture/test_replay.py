"""Recordings of every usual kind become the same 16 kHz mono; what is none, or is damaged, is told."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.capture.replay import Recording
from omi_edge.domain import SAMPLE_RATE
from omi_edge.errors import AudioError

SECONDS = 3
TONES = (330.0, 880.0, 550.0)
KINDS = {"wav": "pcm_s16le", "flac": "flac", "ogg": "libopus", "mp3": "libmp3lame", "m4a": "aac"}
SHAPES = [(16_000, 1), (48_000, 2), (44_100, 2)]
MADE = [(kind, rate, channels) for kind in KINDS for rate, channels in SHAPES if (kind, rate) != ("ogg", 44_100)]


def melody(rate: int) -> npt.NDArray[np.int16]:
    """One tone a second."""
    times = np.arange(rate) / rate
    return np.concatenate([9000 * np.sin(2 * np.pi * tone * times) for tone in TONES]).astype(np.int16)


def make(path: Path, kind: str, rate: int, channels: int, **tags: str) -> Path:
    layout = "mono" if channels == 1 else "stereo"
    with av.open(str(path), "w", format="ipod" if kind == "m4a" else kind) as container:
        stream: Any = container.add_stream(KINDS[kind], rate=rate)
        stream.layout = layout
        container.metadata.update(tags)
        samples = np.repeat(melody(rate)[:, None], channels, axis=1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate = rate
        size = stream.codec_context.frame_size
        cutter = av.AudioResampler(stream.codec_context.format.name, layout, rate, size or None)
        for piece in [*cutter.resample(frame), *cutter.resample(None), None]:
            for packet in stream.encode(piece):
                container.mux(packet)
    return path


def loudest(pcm: npt.NDArray[np.int16]) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(pcm.astype(float)))) * SAMPLE_RATE / len(pcm))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, int], Path]:
    folder = tmp_path_factory.mktemp("recordings")
    return {
        (kind, rate, channels): make(folder / f"{rate}-{channels}.{kind}", kind, rate, channels)
        for kind, rate, channels in MADE
    }


Made = dict[tuple[str, int, int], Path]


@pytest.mark.parametrize("which", MADE, ids=lambda which: "-".join(map(str, which)))
def test_every_kind_becomes_the_same_sound(recordings: Made, which: tuple[str, int, int]) -> None:
    recording = Recording(recordings[which])
    blocks = list(recording)
    pcm = np.concatenate(blocks)
    assert {block.dtype for block in blocks} == {np.dtype(np.int16)}
    assert len(pcm) == pytest.approx(SECONDS * SAMPLE_RATE, abs=0.08 * SAMPLE_RATE)  # AAC pads
    for second, tone in enumerate(TONES):
        middle = pcm[round((second + 0.2) * SAMPLE_RATE) : round((second + 0.8) * SAMPLE_RATE)]
        assert loudest(middle) == pytest.approx(tone, abs=3)
        assert np.abs(middle).max() == pytest.approx(9000, rel=0.15)
    assert recording.damage is None


@pytest.mark.parametrize("which", MADE, ids=lambda which: "-".join(map(str, which)))
def test_a_file_tells_what_it_is(recordings: Made, which: tuple[str, int, int]) -> None:
    kind, rate, channels = which
    info = Recording(recordings[which]).info
    assert info.name == f"{rate}-{channels}.{kind}"
    assert info.seconds == pytest.approx(SECONDS, abs=0.08)
    assert info.start_us is None
    assert info.channels == channels
    assert info.rate == (48_000 if kind == "ogg" else rate)  # Opus is always 48 kHz outside
    assert KINDS[kind].removeprefix("lib").startswith(info.codec[:3])


def test_wav_comes_sample_for_sample(recordings: Made) -> None:
    pcm = np.concatenate(list(Recording(recordings["wav", 16_000, 1]).read()))
    assert np.array_equal(pcm, melody(SAMPLE_RATE))


def test_two_channels_are_mixed(tmp_path: Path) -> None:
    path = tmp_path / "sides.wav"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=16_000)
        stream.layout = "stereo"
        sides = np.tile(np.array([8000, 0], np.int16), 16_000).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(sides, format="s16", layout="stereo")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
    assert np.concatenate(list(Recording(path))) == pytest.approx(4000, abs=2)


def test_reading_twice_gives_the_same(recordings: Made) -> None:
    recording = Recording(recordings["mp3", 44_100, 2])
    assert np.array_equal(np.concatenate(list(recording)), np.concatenate(list(recording)))


@pytest.mark.parametrize(
    ("tag", "start_us"),
    [
        ("2026-03-02T09:00:00Z", 1_772_442_000_000_000),
        ("2026-03-02T10:00:00+01:00", 1_772_442_000_000_000),
        ("2026-03-02", None),  # a day is no moment
        ("2026-03-02T09:00:00", None),  # of which zone?
        ("1904-01-01T00:00:00Z", None),  # the zero of QuickTime: not set
        ("yesterday", None),
    ],
)
def test_when_it_was_recorded(tmp_path: Path, tag: str, start_us: int | None) -> None:
    assert Recording(make(tmp_path / "a.flac", "flac", 16_000, 1, creation_time=tag)).info.start_us == start_us


class TestNoRecording:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(AudioError, match="no such recording"):
            Recording(tmp_path / "none.wav")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(AudioError, match="not a file"):
            Recording(tmp_path)

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.wav").touch()
        with pytest.raises(AudioError, match="empty"):
            Recording(tmp_path / "a.wav")

    def test_unreadable(self, recordings: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*arguments: object, **options: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refused)  # file modes would not stop root
        with pytest.raises(AudioError, match="permissions"):
            Recording(recordings["wav", 16_000, 1])

    @pytest.mark.parametrize("content", [b"\0" * 5000, b"RIFF", b"OggS" * 50, b"words, and no sound\n" * 100])
    def test_something_else(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "secret-name.wav"
        path.write_bytes(content)
        with pytest.raises(AudioError, match=r"not audio|no audio") as error:
            list(Recording(path))
        assert "secret-name" not in str(error.value)

    def test_without_a_track_of_sound(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 32
            for image in [av.VideoFrame(32, 32, "yuv420p"), None]:
                container.mux(stream.encode(image))
        with pytest.raises(AudioError, match="no audio track"):
            Recording(path)

    def test_without_any_sound_in_it(self, recordings: Made, tmp_path: Path) -> None:
        path = tmp_path / "a.wav"
        whole = recordings["wav", 16_000, 1].read_bytes()
        path.write_bytes(whole[: whole.index(b"data") + 8])
        with pytest.raises(AudioError, match=r"no audio|not audio"):
            list(Recording(path))

    @pytest.mark.parametrize(
        "playlist",
        [
            "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n16000-1.mp3\n#EXT-X-ENDLIST\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nhttp://127.0.0.1:9/a.mp3\n#EXT-X-ENDLIST\n",
            "ffconcat version 1.0\nfile '16000-1.mp3'\n",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        ],
        ids=["files", "network", "concat", "sdp"],
    )
    def test_a_list_of_other_files_opens_none_of_them(self, recordings: Made, playlist: str) -> None:
        path = recordings["mp3", 16_000, 1].parent / "list.m3u8"
        path.write_text(playlist)
        with pytest.raises(AudioError):
            list(Recording(path))


class TestDamage:
    @pytest.mark.parametrize("which", [which for which in MADE if which[0] != "m4a"], ids=str)
    def test_of_a_file_cut_in_the_middle_the_first_part_is_kept(
        self, recordings: Made, tmp_path: Path, which: tuple[str, int, int]
    ) -> None:
        whole = recordings[which].read_bytes()
        path = tmp_path / f"a.{which[0]}"
        path.write_bytes(whole[: len(whole) // 2])
        recording = Recording(path)
        pcm = np.concatenate(list(recording))
        assert 0.5 * SAMPLE_RATE < len(pcm) < 2 * SAMPLE_RATE
        assert loudest(pcm[3200:8000]) == pytest.approx(TONES[0], abs=4)
        assert recording.damage is not None
        assert " s" in recording.damage

    def test_an_m4a_without_its_end_cannot_be_read(self, recordings: Made, tmp_path: Path) -> None:
        path = tmp_path / "a.m4a"
        whole = recordings["m4a", 48_000, 2].read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(AudioError, match="not audio that can be read"):
            Recording(path)

    def test_a_wav_of_a_codec_that_nobody_knows_is_told(self, recordings: Made, tmp_path: Path) -> None:
        content = bytearray(recordings["wav", 16_000, 1].read_bytes())
        at = content.index(b"fmt ") + 8
        content[at : at + 2] = b"\xf0\xf0"
        path = tmp_path / "a.wav"
        path.write_bytes(content)
        with pytest.raises(AudioError, match="nothing here can decode"):
            Recording(path)

    @pytest.mark.parametrize("kind", ["ogg", "mp3", "m4a", "flac"])
    def test_what_comes_after_a_damaged_part_is_kept(self, recordings: Made, tmp_path: Path, kind: str) -> None:
        content = bytearray(recordings[kind, 48_000, 2].read_bytes())
        middle = len(content) // 2
        content[middle : middle + 300] = np.random.default_rng(1).bytes(300)
        path = tmp_path / f"a.{kind}"
        path.write_bytes(content)
        recording = Recording(path)
        pcm = np.concatenate(list(recording))
        assert recording.damage is not None
        assert loudest(pcm[-8000:-1600]) == pytest.approx(TONES[2], abs=4)

    def test_a_wav_of_unknown_length_is_sound(self, recordings: Made, tmp_path: Path) -> None:
        content = bytearray(recordings["wav", 16_000, 1].read_bytes())
        data = content.index(b"data")
        content[4:8] = content[data + 4 : data + 8] = b"\xff" * 4  # what a writer leaves that cannot seek
        path = tmp_path / "a.wav"
        path.write_bytes(content)
        recording = Recording(path)
        assert len(np.concatenate(list(recording))) == SECONDS * SAMPLE_RATE
        assert recording.damage is None

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(st.data())
    def test_nothing_but_audio_errors_leaves(self, recordings: Made, tmp_path: Path, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from([which for which in MADE if which[1] == 16_000]))
        content = bytearray(recordings[which].read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 200))
            noise = data.draw(st.binary(min_size=1, max_size=16))
            content[at : at + len(noise)] = noise
        path = tmp_path / f"a.{which[0]}"
        path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
        try:
            for block in Recording(path):
                assert block.dtype == np.int16
        except AudioError:
            pass


def test_nothing_is_printed(recordings: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = recordings["mp3", 44_100, 2].read_bytes()
    path = tmp_path / "a.mp3"
    path.write_bytes(content[:5000] + content[6000:9000])
    list(Recording(path))
    assert capfd.readouterr() == ("", "")


def test_tags_do_not_change_what_a_recording_is_known_by(tmp_path: Path, recordings: Made) -> None:
    digests = []
    for kind in ("wav", "flac", "ogg", "mp3", "m4a"):
        rate = 48_000
        plain = Recording(make(tmp_path / f"a.{kind}", kind, rate, 1)).digest()
        tagged = Recording(make(tmp_path / f"b.{kind}", kind, rate, 1, title="Tea", comment="Nothing")).digest()
        assert plain == tagged, kind
        digests.append(plain)
    assert len(set(digests)) == 5
    assert Recording(recordings["wav", 16_000, 1]).digest() not in digests
