"""A recording decoded step by step, by somebody who has no file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omi_edge.capture.replay import Recording
from omi_edge.capture.uploaded import WINDOW_BYTES, Step, UploadDecoder

RECORDINGS = Path(__file__).parents[1] / "recordings"


def decoded(decoder: UploadDecoder, data: bytes, *, missing_from: int | None = None) -> tuple[bytes, str]:
    """Answer all that is asked for; return the PCM and what was wrong."""
    pcm = b""
    step = decoder.start(len(data))
    while not step.ended:
        assert step.size <= WINDOW_BYTES
        assert step.offset % WINDOW_BYTES == 0
        pcm += step.pcm
        given = b"" if missing_from is not None and step.offset >= missing_from else data[step.offset :][: step.size]
        step = decoder.go_on(given if step.size else b"")
    return pcm, step.problem


@pytest.mark.parametrize("name", ["short.ogg", "words-44k1-stereo.flac"])
def test_it_hears_what_a_file_holds(name: str) -> None:
    path = RECORDINGS / name
    pcm, problem = decoded(UploadDecoder(), path.read_bytes())
    assert problem == ""
    assert pcm == np.concatenate(list(Recording(path))).astype("<i2").tobytes()


@pytest.mark.parametrize("name", ["short.ogg", "words-44k1-stereo.flac"])
def test_it_says_what_is_wrong_and_goes_on_with_another(name: str) -> None:
    data = (RECORDINGS / name).read_bytes()
    decoder = UploadDecoder()
    assert "not audio that can be read" in decoded(decoder, b"RIFF" + bytes(5000))[1]
    assert "s" in decoded(decoder, data[: len(data) // 2])[1]
    assert decoded(decoder, data, missing_from=WINDOW_BYTES if len(data) > WINDOW_BYTES else 0)[1]
    decoder.start(len(data))  # given up by the next
    assert decoded(decoder, data)[1] == ""


def test_nothing_goes_on_that_was_not_started() -> None:
    with pytest.raises(ValueError, match="nothing was started"):
        UploadDecoder().go_on(b"")
    assert Step(problem="x").ended
