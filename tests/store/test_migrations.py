"""Numbered steps: each once, in order, whole or not at all, never backwards."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.errors import VaultError, VaultNewer
from omi_edge.store import inspect, migrations
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from tests.helpers import PASSPHRASE
from tests.store import filling

NEWEST = migrations.MIGRATIONS[-1][0]
SECOND_STEP = """
ALTER TABLE people ADD COLUMN nickname TEXT NOT NULL DEFAULT '';
CREATE TABLE places (id TEXT PRIMARY KEY, visits INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER places_counted AFTER UPDATE ON places BEGIN
    UPDATE people SET nickname = new.id;
END;
UPDATE people SET nickname = name;
"""
THIRD_STEP = "CREATE INDEX places_visits ON places (visits);"
BROKEN_STEP = SECOND_STEP + "INSERT INTO no_such_table VALUES (1);"


def version(conn: Connection) -> int:
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def schema(conn: Connection) -> list[tuple[str, str | None]]:
    return [tuple(row) for row in conn.execute("SELECT name, sql FROM sqlite_master ORDER BY name")]


async def look(folder: Path, clock: DrivenClock) -> tuple[int, dict[str, int], list[tuple[str, str | None]]]:
    db = Database.open(folder, PASSPHRASE, clock)
    try:
        return await db.read(version), await db.read(inspect.counts), await db.read(schema)
    finally:
        await db.close()


def later(monkeypatch: pytest.MonkeyPatch, *scripts: str) -> None:
    """Have the program know further steps."""
    steps = [(NEWEST + 1 + n, script) for n, script in enumerate(scripts)]
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, *steps))


def test_the_steps_are_numbered_without_a_gap() -> None:
    assert [number for number, _ in migrations.MIGRATIONS] == list(range(1, NEWEST + 1))


async def test_a_vault_of_today_needs_no_step(folder: Path, clock: DrivenClock) -> None:
    told: list[tuple[str, float]] = []
    db = Database.open(folder, PASSPHRASE, clock, progress=lambda what, done: told.append((what, done)))
    assert await db.read(version) == NEWEST
    assert told == []
    await db.close()


async def test_later_steps_run_once_keep_every_row_and_tell_how_far_they_are(
    folder: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database.open(folder, PASSPHRASE, clock)
    await db.write(filling.fill)
    before = await db.read(inspect.counts)
    await db.close()
    later(monkeypatch, SECOND_STEP, THIRD_STEP)
    told: list[tuple[str, float]] = []
    db = Database.open(folder, PASSPHRASE, clock, progress=lambda what, done: told.append((what, done)))
    assert told == [("migration", 0.0), ("migration", 0.5), ("migration", 1.0)]
    assert await db.read(version) == NEWEST + 2
    assert await db.read(inspect.counts) == before
    assert (await db.read(lambda conn: conn.execute("SELECT nickname FROM people").fetchall())) == [
        ("Marguerite",),
        ("Zoé",),
    ]
    assert await db.read(lambda conn: conn.execute("PRAGMA foreign_key_check").fetchall()) == []
    await db.close()
    told.clear()
    await Database.open(folder, PASSPHRASE, clock, progress=lambda what, done: told.append((what, done))).close()
    assert told == []


async def test_a_step_that_fails_leaves_the_version_before_it(
    folder: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database.open(folder, PASSPHRASE, clock)
    await db.write(filling.fill)
    await db.close()
    before = await look(folder, clock)
    with monkeypatch.context() as patch:
        later(patch, BROKEN_STEP)
        with pytest.raises(VaultError):
            Database.open(folder, PASSPHRASE, clock)
    assert await look(folder, clock) == before
    with monkeypatch.context() as patch:  # steps before the broken one stay done
        later(patch, SECOND_STEP, "INSERT INTO no_such_table VALUES (1);")
        with pytest.raises(VaultError):
            Database.open(folder, PASSPHRASE, clock)
    later(monkeypatch, SECOND_STEP)
    assert (await look(folder, clock))[:2] == (NEWEST + 1, before[1])


async def test_a_progress_that_raises_changes_nothing(
    folder: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await look(folder, clock)

    def stop(what: str, done: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        later(patch, SECOND_STEP)
        with pytest.raises(KeyboardInterrupt):
            Database.open(folder, PASSPHRASE, clock, progress=stop)
    assert await look(folder, clock) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from omi_edge.clock import SystemClock
from omi_edge.store import migrations
from omi_edge.store.database import Database

def die():
    os.kill(os.getpid(), signal.SIGKILL)

real = migrations.statements
def statements(script):
    for statement in real(script):
        if statement.startswith("UPDATE"):  # the last of the step: all before it has run
            die()
        yield statement

migrations.statements = statements
migrations.MIGRATIONS = (*migrations.MIGRATIONS, (int(sys.argv[3]), sys.stdin.read()))
Database.open(Path(sys.argv[1]), sys.argv[2], SystemClock())
"""


async def test_a_kill_in_the_middle_of_a_step_leaves_the_version_before_it(
    folder: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database.open(folder, PASSPHRASE, clock)
    await db.write(filling.fill)
    await db.close()
    before = await look(folder, clock)
    killed = subprocess.run(  # noqa: ASYNC221 nothing else waits on this loop
        [sys.executable, "-c", KILLED, str(folder), PASSPHRASE, str(NEWEST + 1)],
        input=SECOND_STEP, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert await look(folder, clock) == before
    later(monkeypatch, SECOND_STEP)
    assert (await look(folder, clock))[:2] == (NEWEST + 1, before[1])


async def test_a_file_of_a_later_version_is_refused_by_number(
    folder: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        later(patch, SECOND_STEP)
        await Database.open(folder, PASSPHRASE, clock).close()
    with pytest.raises(VaultNewer, match=f"version {NEWEST + 1}, this omi-edge knows up to {NEWEST}"):
        Database.open(folder, PASSPHRASE, clock)


def test_statements_are_cut_at_their_ends_and_not_inside_triggers() -> None:
    cut = migrations.statements(SECOND_STEP + "\n-- a remark; with a semicolon\n\n" + THIRD_STEP)
    assert [statement.split()[0] for statement in cut] == ["ALTER", "CREATE", "CREATE", "UPDATE", "CREATE"]
    assert cut[2].endswith("END;")
    assert "remark" not in "".join(cut)


def test_every_statement_of_the_schema_is_cut_out() -> None:
    cut = [statement for _, script in migrations.MIGRATIONS for statement in migrations.statements(script)]
    tables = [s.split()[2] for s in cut if s.startswith("CREATE TABLE")]
    assert sorted(tables) == sorted({*inspect.TABLES, "job_counts"})
    assert all(s.startswith(("CREATE", "INSERT", "ALTER")) for s in cut)


def test_a_step_that_was_shipped_stays_as_it_was() -> None:
    """A file of its version is out there; what changes comes as a further step."""
    digests = {number: hashlib.sha256(script.encode()).hexdigest()[:16] for number, script in migrations.MIGRATIONS}
    assert digests[1] == "69bc4cfe3177de7c"


async def test_a_file_of_version_1_keeps_every_row_and_takes_what_is_new(
    tmp_path: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = "SELECT * FROM {} ORDER BY 1, 2"

    def rows(conn: Connection, tables: list[str]) -> dict[str, list[tuple[object, ...]]]:
        return {table: conn.execute(everything.format(table)).fetchall() for table in tables}

    old = [s.split()[2] for s in migrations.statements(migrations.FIRST) if s.startswith("CREATE TABLE")]
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        Database.create(tmp_path, PASSPHRASE, clock)
        db = Database.open(tmp_path, PASSPHRASE, clock)
        await db.write(filling.fill_first)
        before = await db.read(lambda conn: rows(conn, old))
        assert (await db.read(version), all(before.values())) == (1, True)
        await db.close()
    db = Database.open(tmp_path, PASSPHRASE, clock)
    assert await db.read(version) == NEWEST
    after = await db.read(lambda conn: rows(conn, old))
    # columns that a later step added stand behind those that were there
    assert {table: [row[: len(before[table][0])] for row in found] for table, found in after.items()} == before
    fresh = {table: count for table, count in (await db.read(inspect.counts)).items() if table not in old}
    assert fresh
    assert not any(fresh.values())
    await db.write(filling.fill_second)
    await db.write(filling.fill_third)
    await db.write(filling.fill_fourth)
    await db.write(filling.fill_fifth)
    await db.write(filling.fill_sixth)
    assert all((await db.read(inspect.counts)).values())
    await db.close()
