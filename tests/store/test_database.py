"""The encrypted file itself: who gets in, what is durable, what is left on the disk, which errors leave."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.domain import AudioChunk, ChunkKind, Codec
from omi_edge.errors import (
    BadInput,
    DiskFull,
    NotFound,
    NotReady,
    OmiEdgeError,
    PassphraseError,
    VaultBusy,
    VaultDamaged,
    VaultError,
    VaultExists,
    VaultMissing,
    VaultNewer,
)
from omi_edge.store import audio, connection, database, export, inspect, keys, settings, sources
from omi_edge.store.connection import Connection, library_versions
from omi_edge.store.database import Database
from omi_edge.store.migrations import MIGRATIONS
from tests.helpers import PASSPHRASE, START_US
from tests.store import filling
from tests.store.filling import PACKET, SECOND, SENTENCES, SOURCES, chunk

Contents = dict[str, bytes]


def contents(folder: Path) -> Contents:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def stored(conn: Connection, source_id: str = SOURCES[0]) -> int:
    return len(audio.between(conn, source_id, 0, 1 << 60))


# --- making and opening -------------------------------------------------------------------------------------------


def test_a_new_vault_is_its_owner_s_alone(empty_vault: Path) -> None:
    assert empty_vault.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in empty_vault.iterdir()} == dict.fromkeys(
        (database.NAME, keys.NAME, keys.SECOND_NAME), 0o600
    )


def test_a_folder_that_others_could_enter_is_closed_to_them(
    tmp_path: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "ARGON2_MEMORY_KIB", 32)
    tmp_path.chmod(0o755)
    Database.create(tmp_path, PASSPHRASE, clock)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_vault_is_never_made_over_another(folder: Path, clock: DrivenClock) -> None:
    before = contents(folder)
    with pytest.raises(VaultExists, match="already"):
        Database.create(folder, "another", clock)
    assert contents(folder) == before


def test_key_slots_whose_vault_is_gone_are_not_replaced(folder: Path, clock: DrivenClock) -> None:
    whole = (folder / database.NAME).read_bytes()
    (folder / database.NAME).unlink()
    before = contents(folder)
    with pytest.raises(VaultExists, match="Put it back from a backup"):
        Database.create(folder, "another", clock)
    assert contents(folder) == before
    (folder / database.NAME).write_bytes(whole)  # the backup comes back, and the old passphrase opens it
    asyncio.run(Database.open(folder, PASSPHRASE, clock).close())


async def test_a_creation_that_was_killed_can_be_repeated(folder: Path, clock: DrivenClock) -> None:
    (folder / database.NAME).rename(folder / (database.NAME + ".new"))
    (folder / (database.NAME + ".new-wal")).write_bytes(b"left over")
    Database.create(folder, "another", clock)
    db = Database.open(folder, "another", clock)
    assert await db.read(lambda conn: settings.get(conn, "created_us")) == str(START_US)
    await db.close()
    assert not list(folder.glob("*.new*"))


def test_an_empty_passphrase_is_refused_and_nothing_is_made(tmp_path: Path, clock: DrivenClock) -> None:
    with pytest.raises(BadInput, match="must not be empty"):
        Database.create(tmp_path / "new", "", clock)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_one_of_our_errors(tmp_path: Path, clock: DrivenClock) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(VaultError, match="cannot be used"):
        Database.create(tmp_path / "file" / "vault", PASSPHRASE, clock)


def test_a_wrong_passphrase_is_one_error_and_no_byte_changes(folder: Path, clock: DrivenClock) -> None:
    before = contents(folder)
    with pytest.raises(PassphraseError, match=r"^wrong passphrase\. Nothing was changed; try again\.$"):
        Database.open(folder, "wrong", clock)
    assert contents(folder) == before


def test_a_missing_vault_is_said_so_and_none_is_made(tmp_path: Path, clock: DrivenClock) -> None:
    with pytest.raises(VaultMissing, match="omi-edge init"):
        Database.open(tmp_path, PASSPHRASE, clock)
    assert not list(tmp_path.iterdir())


def test_a_vault_without_its_key_slots_is_not_called_missing(folder: Path, clock: DrivenClock) -> None:
    for name in (keys.NAME, keys.SECOND_NAME):
        (folder / name).unlink()
    before = contents(folder)
    with pytest.raises(VaultDamaged, match=r"keyslots\.json back from a backup"):
        Database.open(folder, PASSPHRASE, clock)
    assert contents(folder) == before


def test_key_slots_without_their_vault_do_not_make_a_new_one(folder: Path, clock: DrivenClock) -> None:
    (folder / database.NAME).unlink()
    with pytest.raises(VaultDamaged, match="no new one is made"):
        Database.open(folder, PASSPHRASE, clock)
    assert not (folder / database.NAME).exists()


@pytest.mark.parametrize("damage", ["emptied", "cut", "header", "not ours"])
def test_a_damaged_file_is_refused_and_left_as_it_is(folder: Path, clock: DrivenClock, damage: str) -> None:
    path = folder / database.NAME
    whole = path.read_bytes()
    path.write_bytes(
        {
            "emptied": b"",
            "cut": whole[:1000],
            "header": whole[:100] + bytes([whole[100] ^ 1]) + whole[101:],
            "not ours": b"SQLite format 3\0" + bytes(8176),
        }[damage]
    )
    before = path.read_bytes()
    with pytest.raises(VaultDamaged, match="backup"):
        Database.open(folder, PASSPHRASE, clock)
    assert path.read_bytes() == before


def test_the_vault_of_another_folder_does_not_open(folder: Path, tmp_path: Path, clock: DrivenClock) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "ARGON2_MEMORY_KIB", 32)
        Database.create(tmp_path / "other", PASSPHRASE, clock)
    shutil.copyfile(tmp_path / "other" / database.NAME, folder / database.NAME)
    with pytest.raises(VaultDamaged):
        Database.open(folder, PASSPHRASE, clock)


async def test_a_flipped_bit_deep_in_the_file_is_damage_not_a_full_disk(folder: Path, clock: DrivenClock) -> None:
    db = Database.open(folder, PASSPHRASE, clock)
    await db.write(filling.fill)
    await db.close()
    path = folder / database.NAME
    whole = path.read_bytes()
    page = 4096
    seen = 0
    for place in range(page + 99, len(whole), 6 * page):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            db = Database.open(folder, PASSPHRASE, clock)
        except VaultDamaged:
            seen += 1
            continue
        try:
            await db.read(lambda conn: "".join(export.document(conn, include_audio=True)))
        except VaultDamaged:
            seen += 1
        await db.close()
    assert seen >= 3


async def test_a_file_newer_than_the_program_is_refused_and_left_alone(folder: Path, clock: DrivenClock) -> None:
    newest = MIGRATIONS[-1][0]
    db = Database.open(folder, PASSPHRASE, clock)
    await db.write(lambda conn: conn.execute(f"PRAGMA user_version = {newest + 1}"))
    await db.close()
    before = contents(folder)
    with pytest.raises(VaultNewer, match=f"version {newest + 1}"):
        Database.open(folder, PASSPHRASE, clock)
    assert contents(folder) == before


async def test_a_file_that_is_not_a_vault_of_ours_is_refused(folder: Path, clock: DrivenClock) -> None:
    db = Database.open(folder, PASSPHRASE, clock)
    await db.write(lambda conn: conn.execute("PRAGMA application_id = 1"))
    await db.close()
    with pytest.raises(VaultDamaged, match="not a vault of omi-edge"):
        Database.open(folder, PASSPHRASE, clock)


async def test_the_promises_of_the_connection_hold(db: Database) -> None:
    def pragmas(conn: Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "secure_delete", "foreign_keys", "temp_store", "auto_vacuum",
                 "trusted_schema", "cipher_hmac_algorithm", "page_size")  # fmt: skip
        return {name: conn.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    expected = {
        "journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1, "temp_store": 2,
        "auto_vacuum": 2, "trusted_schema": 0, "cipher_hmac_algorithm": "HMAC_SHA512", "page_size": "4096",
    }  # fmt: skip
    assert await db.write(pragmas) == expected
    assert await db.read(pragmas) == expected
    assert "SQLCipher 4" in library_versions()


# --- transactions -------------------------------------------------------------------------------------------------


async def test_nothing_of_a_failed_write_stays(full: Database) -> None:
    before = await full.read(inspect.counts)

    def fail(conn: Connection) -> None:
        filling.add_source(conn, "src_third")
        settings.put(conn, "zone", "changed")
        raise NotFound("on purpose.")

    with pytest.raises(NotFound, match="on purpose"):
        await full.write(fail)
    assert await full.read(inspect.counts) == before
    assert await full.read(lambda conn: settings.get(conn, "zone")) == "Europe/Paris"
    await full.write(lambda conn: settings.put(conn, "zone", "UTC"))  # and the writer goes on


async def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(VaultError, match="refused"):
        await db.read(lambda conn: settings.put(conn, "a", "b"))
    assert await db.read(lambda conn: settings.get(conn, "a")) is None


async def test_a_read_sees_one_state_while_writes_go_on(db: Database) -> None:
    began, go_on = threading.Event(), threading.Event()

    def read_twice(conn: Connection) -> tuple[str | None, str | None]:
        first = settings.get(conn, "k")
        began.set()
        go_on.wait()
        return first, settings.get(conn, "k")

    await db.write(lambda conn: settings.put(conn, "k", "before"))
    reading = asyncio.create_task(db.read(read_twice))
    await asyncio.to_thread(began.wait)
    await db.write(lambda conn: settings.put(conn, "k", "after"))
    go_on.set()
    assert await reading == ("before", "before")
    assert await db.read(lambda conn: settings.get(conn, "k")) == "after"


async def test_a_cancelled_waiter_leaves_its_transaction_whole(db: Database) -> None:
    began, go_on = threading.Event(), threading.Event()

    def write(conn: Connection) -> None:
        settings.put(conn, "first", "1")
        began.set()
        go_on.wait()
        settings.put(conn, "second", "2")

    writing = asyncio.create_task(db.write(write))
    await asyncio.to_thread(began.wait)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    go_on.set()
    await db.write(lambda conn: settings.put(conn, "third", "3"))
    found = await db.read(lambda conn: [settings.get(conn, key) for key in ("first", "second", "third")])
    assert found == ["1", "2", "3"]


async def test_the_clock_is_held_while_work_is_in_flight(db: Database, clock: DrivenClock) -> None:
    began, go_on = threading.Event(), threading.Event()

    def work(_: Connection) -> int:
        began.set()
        go_on.wait()
        return clock.utc_us()

    for access in (db.read, db.write):
        began.clear()
        go_on.clear()
        before = clock.utc_us()
        working = asyncio.create_task(access(work))
        await asyncio.to_thread(began.wait)
        advancing = asyncio.create_task(clock.advance(60))
        await asyncio.sleep(0)
        go_on.set()
        assert await working == before
        await advancing
        assert clock.utc_us() == before + 60 * SECOND


async def test_closing_finishes_what_waits_and_leaves_one_file(folder: Path, clock: DrivenClock) -> None:
    db = Database.open(folder, PASSPHRASE, clock)
    writing = [
        asyncio.create_task(db.write(functools.partial(settings.put, key=f"k{n}", value="v"))) for n in range(20)
    ]
    await asyncio.sleep(0)
    await db.close()
    await db.close()
    await asyncio.gather(*writing)
    assert {path.name for path in folder.iterdir()} == {database.NAME, keys.NAME, keys.SECOND_NAME}
    for access in (db.read, db.write):
        with pytest.raises(NotReady, match="closed"):
            await access(lambda conn: None)
    again = Database.open(folder, PASSPHRASE, clock)
    assert await again.read(lambda conn: conn.execute("SELECT count(*) FROM settings").fetchone()[0]) == 21
    await again.close()


async def test_no_foreign_error_and_no_content_leaves(db: Database) -> None:
    secret = "walnut"
    attempts = (
        lambda conn: conn.execute(f"SELECT * FROM {secret}"),
        lambda conn: conn.execute("SELECT ?", (f"{secret}\ud800",)),
        lambda conn: conn.execute("SELECT ?", (1 << 63,)),
        lambda conn: conn.execute("SELECT ?", (object(),)),
        lambda conn: conn.execute(f"SELECT * FROM documents_fts WHERE documents_fts MATCH '\"{secret}'").fetchall(),
        lambda conn: conn.execute("INSERT INTO segments VALUES ('s', 99, 0, 0, 0, 'pending', NULL, NULL, NULL)"),
    )
    for number, attempt in enumerate(attempts):
        for access in (db.read, db.write):
            with pytest.raises(OmiEdgeError) as failed:
                await access(attempt)
            assert secret not in str(failed.value), number
    with pytest.raises(BadInput, match="64 bits"):
        await db.read(attempts[2])


async def test_a_vault_that_another_process_writes_to_is_busy(
    db: Database, folder: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_MS", 1)
    other = Database.open(folder, PASSPHRASE, clock)
    began, go_on = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        began.set()
        go_on.wait()

    holding = asyncio.create_task(db.write(hold))
    await asyncio.to_thread(began.wait)
    with pytest.raises(VaultBusy, match="another process"):
        await other.write(lambda conn: settings.put(conn, "a", "b"))
    go_on.set()
    await holding
    await other.write(lambda conn: settings.put(conn, "a", "b"))
    await other.close()


# --- a full disk --------------------------------------------------------------------------------------------------


async def test_a_full_disk_keeps_what_is_there_and_goes_on_when_there_is_space(db: Database) -> None:
    await db.write(filling.add_source)

    def limit(conn: Connection, spare: int) -> None:
        pages = conn.execute("PRAGMA page_count").fetchone()[0]
        conn.execute(f"PRAGMA max_page_count = {pages + spare}")

    await db.write(lambda conn: limit(conn, 20))
    written = 0
    with pytest.raises(DiskFull, match="Free some space; nothing that was stored is lost"):
        for written in range(1000):
            await db.write(functools.partial(audio.put, chunk=chunk(SOURCES[0], START_US + written * 2 * SECOND)))
    assert 0 < written < 999
    assert await db.read(stored) == written
    kept = await db.read(lambda conn: sources.get(conn, SOURCES[0]).audio_bytes)
    assert kept == written * 99 * len(PACKET)  # the counters tell of what is there, not of what failed
    assert (await db.read(lambda conn: conn.execute("PRAGMA integrity_check").fetchone()[0])) == "ok"
    await db.write(lambda conn: conn.execute("PRAGMA max_page_count = 4294967294"))
    await db.write(lambda conn: audio.put(conn, chunk(SOURCES[0], START_US + written * 2 * SECOND)))
    assert await db.read(stored) == written + 1


async def test_a_failed_write_on_a_full_disk_is_undone_as_a_whole(db: Database) -> None:
    await db.write(filling.add_source)
    await db.write(lambda conn: conn.execute("PRAGMA max_page_count = 1"))

    def write(conn: Connection) -> None:
        settings.put(conn, "small", "fits")
        for n in range(1000):
            audio.put(conn, chunk(SOURCES[0], START_US + n * 2 * SECOND))

    with pytest.raises(DiskFull):
        await db.write(write)
    assert await db.read(lambda conn: settings.get(conn, "small")) is None
    assert await db.read(stored) == 0


def test_a_disk_without_space_for_the_key_slots_is_said_so(
    tmp_path: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(keys, "ARGON2_MEMORY_KIB", 32)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(DiskFull):
            Database.create(tmp_path, PASSPHRASE, clock)
    Database.create(tmp_path, PASSPHRASE, clock)  # with space it goes on


# --- a crash ------------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from pathlib import Path
from omi_edge.clock import SystemClock
from omi_edge.domain import AudioChunk, Codec
from omi_edge.store import audio
from omi_edge.store.database import Database

async def main():
    db = Database.open(Path(sys.argv[1]), sys.argv[2], SystemClock())
    for n in range(100_000):
        chunk = AudioChunk("src_pendant", n * 2_000_000, Codec.OPUS_20MS, (n.to_bytes(4, "big") * 20,) * 100)
        await db.write(lambda conn: audio.put(conn, chunk))
        sys.stdout.write(f"{n}\\n")
        sys.stdout.flush()

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 17, 60])
async def test_every_acknowledged_chunk_survives_a_kill(folder: Path, clock: DrivenClock, after: int) -> None:
    db = Database.open(folder, PASSPHRASE, clock)
    await db.write(filling.add_source)
    await db.close()
    with subprocess.Popen(  # noqa: ASYNC220 nothing else waits on this loop
        [sys.executable, "-c", WRITER, str(folder), PASSPHRASE], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(after):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        acknowledged = after + sum(line.endswith("\n") for line in writer.stdout)
    db = Database.open(folder, PASSPHRASE, clock)
    chunks = await db.read(lambda conn: audio.between(conn, SOURCES[0], -1, 1 << 60))
    assert len(chunks) in (acknowledged, acknowledged + 1)  # the last may be durable and not yet told
    assert [one.packets for one in chunks] == [(n.to_bytes(4, "big") * 20,) * 100 for n in range(len(chunks))]
    counted = await db.read(lambda conn: sources.get(conn, SOURCES[0]).audio_bytes)
    assert counted == sum(len(packet) for one in chunks for packet in one.packets)
    assert (await db.read(lambda conn: conn.execute("PRAGMA integrity_check").fetchone()[0])) == "ok"
    await db.close()


# --- what lies on the disk ----------------------------------------------------------------------------------------


async def test_no_written_phrase_and_no_packet_can_be_read_on_the_disk(folder: Path, clock: DrivenClock) -> None:
    packet = bytes((n * 37 + 11) % 256 for n in range(60))
    db = Database.open(folder, PASSPHRASE, clock)
    await db.write(filling.fill)
    await db.write(
        lambda conn: audio.put(conn, AudioChunk(SOURCES[0], START_US, Codec.OPUS_20MS, (packet,) * 9, ChunkKind.HEARD))
    )
    phrases = (*SENTENCES, "zephyr", "Marguerite", "plumber", "Europe/Paris", "Buy stamps", "SQLite format 3",
               "CREATE TABLE", PASSPHRASE, SOURCES[0])  # fmt: skip
    needles = [phrase.encode(code) for phrase in phrases for code in ("utf-8", "utf-16-le", "utf-16-be")]
    needles += [packet, packet[:16], PACKET, PACKET[:16]]
    files = contents(folder)
    assert len(files[f"{database.NAME}-wal"]) > 4096  # what was written is still in the log
    await db.close()
    assert len(contents(folder)[database.NAME]) > 4096  # and now in the file
    for name, data in (*files.items(), *contents(folder).items()):
        assert not [needle for needle in needles if needle in data], name
