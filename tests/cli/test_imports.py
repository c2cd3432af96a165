"""`import` as a person types it: Omi's own files, the same file twice, a pendant's, folders, and watching them."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omi_edge.capture.replay import Recording
from omi_edge.capture.wal import framed
from omi_edge.clock import SystemClock
from omi_edge.domain import Codec
from omi_edge.opus import Encoder
from omi_edge.store import devices
from omi_edge.store.database import Database
from tests.cli.conftest import RECORDINGS, Place, cheapen
from tests.helpers import PASSPHRASE

OPTIONS = ("--data", "D", "--passphrase-file", "F")
PATIENCE_SECONDS = 30.0
START_S = 1_795_176_000
NAME = f"audio_c0ffee000001_opus_fs320_16000_1_fs320_{START_S}.bin"
STRANGE = f"audio_c0ffee000002_opus_fs320_16000_1_fs320_{START_S}.bin"


@pytest.fixture(scope="module")
def vault(place: Place) -> Path:
    """An empty vault in which a pendant is remembered."""
    assert place(*OPTIONS, "init", "--yes").code == 0
    cheapen(place.home / "D")

    async def remember() -> None:
        db = Database.open(place.home / "D", PASSPHRASE, SystemClock())
        await db.write(
            lambda conn: devices.remember(
                conn, address="C0:FF:EE:00:00:01", name="grey", own_name="Omi", now_us=START_S * 1_000_000
            )
        )
        await db.close()

    asyncio.run(remember())
    return place.home / "D"


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    samples = np.concatenate(list(Recording(RECORDINGS / "short.ogg")))
    encoder = Encoder(Codec.OPUS_20MS)
    return [encoder.encode(frame) for frame in samples[: len(samples) // 320 * 320].reshape(-1, 320)]


def items(place: Place, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    done = place(*OPTIONS, "import", "--json", *arguments)
    assert done.code == code, done
    found: list[dict[str, Any]] = json.loads(done.out)["items"]
    return found


def source(place: Place, source_id: str) -> dict[str, Any]:
    found = place(*OPTIONS, "status", "--json").json["sources"]
    return next(one for one in found if one["id"] == source_id)


@pytest.mark.full
def test_omis_files_and_everything_only_once(place: Place, vault: Path, frames: list[bytes]) -> None:
    home = place.home
    whole = b"".join(map(framed, frames))
    (home / STRANGE).write_bytes(whole)
    [first] = items(place, STRANGE)
    state = first["state"]
    assert (state["state"], state["start"], first["start_from"]) == ("done", "2026-11-20T12:00:00.000Z", "name")
    assert state["seconds"] == pytest.approx(len(frames) * 0.02, abs=0.001)
    assert state["conversations"]
    assert source(place, state["source_id"])["kind"] == "file"

    (home / "other.bin").write_bytes(whole + b"\x09\0")  # by another name, and with half a length at its end
    [same] = items(place, "other.bin", code=6)
    assert (same["state"]["state"], same["state"]["source_id"]) == ("already-there", state["source_id"])
    assert "breaks off" in same["damage"]
    told = place(*OPTIONS, "import", STRANGE)
    assert told.code == 0
    assert f"in source {state['source_id']} already" in told.err
    assert len(place(*OPTIONS, "status", "--json").json["sources"]) == 1

    [again] = items(place, STRANGE, "--again")
    assert again["state"]["source_id"] != state["source_id"]

    (home / "cut.bin").write_bytes(whole[:5000])
    [cut] = items(place, "cut.bin", code=6)
    assert "breaks off" in cut["damage"]
    assert cut["state"]["state"] == "done"
    assert cut["start_from"] == "file"
    assert source(place, cut["state"]["source_id"])["time_known"] is False


@pytest.mark.full
def test_a_pendants_file_goes_among_its_audio(place: Place, vault: Path, frames: list[bytes]) -> None:
    half = len(frames) // 2
    (place.home / NAME).write_bytes(b"".join(map(framed, frames[:half])))
    [first] = items(place, NAME)
    grey = first["state"]["source_id"]
    assert (source(place, grey)["kind"], source(place, grey)["name"]) == ("pendant", "grey")
    assert first["state"]["left_out"] == 0
    # more of the same time, under its name: what is there already stays
    longer = place.home / f"{NAME.removesuffix('.bin')} (1).bin"
    longer.write_bytes(b"".join(map(framed, [*frames[:half], *frames])))
    [second] = items(place, longer.name, "--device", "GREY")
    assert second["state"]["source_id"] == grey
    assert second["state"]["left_out"] > 0
    assert second["state"]["id"] != grey

    nobody = place(*OPTIONS, "import", "talk.wav", "--start", "2026-03-02 10:00", "--device", "nobody")
    assert nobody.code == 4
    assert "no pendant of this name" in nobody.err
    guessed = place(*OPTIONS, "import", "talk.wav", "--device", "grey")
    assert (guessed.code, guessed.out) == (6, "")
    assert "--start" in guessed.err


@pytest.mark.full
def test_a_folder_and_what_cannot_be_asked(place: Place, vault: Path) -> None:
    folder = place.home / "many"
    (folder / "deeper").mkdir(parents=True)
    shutil.copy(place.home / "talk.wav", folder / "deeper" / "talk.wav")
    shutil.copy(place.home / "talk.wav", folder / "twin.wav")
    (folder / "half.wav.part").write_bytes(b"RIFF")
    (folder / "notes.txt").write_text("Words, and no sound.", encoding="utf-8")
    taken = items(place, "many", code=6)
    assert [(one["file"], one["state"] and one["state"]["state"]) for one in taken] == [
        ("many/notes.txt", None),
        ("many/twin.wav", "done"),
        ("many/deeper/talk.wav", "already-there"),
    ]
    (place.home / "nothing").mkdir()
    assert items(place, "nothing") == []
    for arguments in (("many", "--start", "2026-03-02"), ("many", "--watch", "--again"), ("nowhere", "--watch")):
        assert place(*OPTIONS, "import", *arguments).code == 2


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.full)]
)
def test_a_watched_folder(place: Place, vault: Path, frames: list[bytes], number: int, code: int) -> None:
    folder = place.home / f"watched{code}"
    folder.mkdir()
    mine = frames[40 + code % 7 :]  # content that no other test takes
    (folder / f"old{code}.bin").write_bytes(b"".join(map(framed, mine)))
    (folder / "notes.txt").write_text("Words, and no sound.", encoding="utf-8")
    log = place.home / f"watch{code}.log"
    for round_ in range(2):
        with (
            log.open("w") as err,
            place.start(*OPTIONS, "import", "--json", "--watch", str(folder), stderr=err) as process,
        ):
            assert process.stdout is not None
            until(lambda: "notes.txt: " in log.read_text(), "the look at the notes")
            if round_ == 0:
                first = json.loads(process.stdout.readline())
                assert first["problem"]  # the notes come first
                second = json.loads(process.stdout.readline())
                assert second["file"].endswith(f"old{code}.bin")
                assert second["state"]["complete"]
                part = folder / f"new{code}.bin.part"
                part.write_bytes(b"".join(map(framed, mine[20:])))
                part.rename(folder / f"new{code}.bin")
                third = json.loads(process.stdout.readline())
                assert third["file"].endswith(f"new{code}.bin")
            process.send_signal(number)
            out, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == code, log.read_text()
        if round_ == 1:  # nothing is taken twice; what is no audio is told once in each life
            assert [json.loads(line)["file"].rsplit("/")[-1] for line in out.splitlines()] in ([], ["notes.txt"])
        assert log.read_text().count("notes.txt: ") == 1
    assert sorted(path.name for path in folder.iterdir()) == [f"new{code}.bin", "notes.txt", f"old{code}.bin"]
    names = [one["name"] for one in place(*OPTIONS, "status", "--json").json["sources"]]
    assert (names.count(f"old{code}.bin"), names.count(f"new{code}.bin")) == (1, 1)


def until(happened: Callable[[], bool], what: str) -> None:
    """Wait until something has happened."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < give_up, f"{what} did not happen"
        threading.Event().wait(0.05)
