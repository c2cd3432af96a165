"""The durable jobs: at most one for each stage and subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omi_edge.domain import Job, JobState, Stage
from omi_edge.errors import NotFound
from omi_edge.ids import new_id
from omi_edge.store.connection import Connection

_COLUMNS = "id, stage, subject_id, state, attempts, not_before_us, cause"
_SOURCE = {
    "seg": "SELECT source_n FROM segments WHERE id = ?",
    "con": "SELECT source_n FROM conversations WHERE id = ?",
}


def enqueue(conn: Connection, stage: Stage, subject_id: str, *, now_us: int) -> Job:
    """Have a stage done for a subject.

    A job that has ended is queued anew; one that waits stays; one that runs will run again afterwards.
    """
    known = conn.execute(
        "SELECT id, state FROM jobs WHERE stage = ? AND subject_id = ?", (stage.value, subject_id)
    ).fetchone()
    if known is None:
        job_id = new_id("job", now_us)
        query = _SOURCE.get(subject_id.split("_")[0])
        row = conn.execute(query, (subject_id,)).fetchone() if query is not None else None
        conn.execute(
            "INSERT INTO jobs (id, stage, subject_id, source_n, state, not_before_us, created_us)"
            " VALUES (?, ?, ?, ?, 'queued', ?, ?)",
            (job_id, stage.value, subject_id, row[0] if row is not None else None, now_us, now_us),
        )
        return get(conn, job_id)
    if known[1] == JobState.RUNNING.value:
        conn.execute("UPDATE jobs SET again = 1 WHERE id = ?", (known[0],))
    elif known[1] != JobState.QUEUED.value:
        _requeue(conn, known[0], now_us)
    return get(conn, known[0])


def get(conn: Connection, job_id: str) -> Job:
    """Return a job. Raises NotFound."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such job.")
    return _job(row)


def due(conn: Connection, now_us: int, stages: Sequence[Stage], limit: int = 1) -> list[Job]:
    """Return queued jobs whose time has come: the last of ``stages`` first, so that what was begun is finished."""
    found: list[Job] = []
    for stage in reversed(stages):
        rows = conn.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE state = 'queued' AND stage = ? AND not_before_us <= ?"
            " ORDER BY not_before_us, n LIMIT ?",
            (stage.value, now_us, limit - len(found)),
        )
        found += map(_job, rows)
        if len(found) >= limit:
            break
    return found


def next_due_us(conn: Connection, stages: Sequence[Stage]) -> int | None:
    """Return when the next queued job's time comes, None when none waits."""
    times = [
        row[0]
        for stage in stages
        for row in conn.execute(
            "SELECT not_before_us FROM jobs WHERE state = 'queued' AND stage = ? ORDER BY not_before_us LIMIT 1",
            (stage.value,),
        )
    ]
    return min(times) if times else None


def start(conn: Connection, job_id: str, now_us: int) -> Job:
    """Count an attempt."""
    conn.execute(
        "UPDATE jobs SET state = 'running', attempts = attempts + 1, started_us = ?, again = 0 WHERE id = ?",
        (now_us, job_id),
    )
    return get(conn, job_id)


def finish(
    conn: Connection, job_id: str, state: JobState, cause: str | None, now_us: int, engine: str | None = None
) -> None:
    """End a job; when it was asked for again while it ran, it is queued anew. Raises NotFound."""
    get(conn, job_id)
    conn.execute(
        "UPDATE jobs SET state = ?, cause = ?, finished_us = ?, engine = ? WHERE id = ?",
        (state.value, cause, now_us, engine, job_id),
    )
    if conn.execute("SELECT again FROM jobs WHERE id = ?", (job_id,)).fetchone()[0]:
        _requeue(conn, job_id, now_us)


def retry(conn: Connection, job_id: str, not_before_us: int, cause: str) -> None:
    """Queue a running job again, not before a moment."""
    conn.execute(
        "UPDATE jobs SET state = 'queued', not_before_us = ?, cause = ? WHERE id = ?", (not_before_us, cause, job_id)
    )


def cancel(conn: Connection, stage: Stage, subject_id: str, now_us: int) -> None:
    """Have a queued job not be done; one that runs has to find out by itself."""
    conn.execute(
        "UPDATE jobs SET state = 'cancelled', finished_us = ? WHERE stage = ? AND subject_id = ? AND state = 'queued'",
        (now_us, stage.value, subject_id),
    )


def put_back(conn: Connection, job_id: str) -> None:
    """Queue a job again whose attempt came to no result, through no fault of its own."""
    conn.execute(
        "UPDATE jobs SET state = 'queued', attempts = max(0, attempts - 1) WHERE id = ? AND state = 'running'",
        (job_id,),
    )


def sweep(conn: Connection, now_us: int) -> int:
    """Queue what a crash left running, and let nothing wait for a time that a stepped clock has moved far away."""
    swept = conn.execute(
        "UPDATE jobs SET state = 'queued', not_before_us = ?, attempts = max(0, attempts - 1) WHERE state = 'running'",
        (now_us,),
    ).rowcount
    for stage in Stage:
        conn.execute(
            "UPDATE jobs SET not_before_us = ? WHERE state = 'queued' AND stage = ? AND not_before_us > ?",
            (now_us, stage.value, now_us),
        )
    return int(swept)


def counts(conn: Connection) -> dict[str, dict[str, int]]:
    """Return how many jobs there are by stage and state."""
    found: dict[str, dict[str, int]] = {}
    for stage, state, count in conn.execute("SELECT stage, state, count FROM job_counts WHERE count > 0"):
        found.setdefault(stage, {})[state] = count
    return found


def failed(conn: Connection, limit: int) -> list[Job]:
    """Return the jobs that failed for good, the newest first."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM jobs WHERE state = 'failed' ORDER BY n DESC LIMIT ?", (limit,))
    return [_job(row) for row in rows]


def of_source(conn: Connection, source_id: str) -> tuple[int, int]:
    """Return how many jobs of a source are left, and how many failed; final passes aside, which may wait for days."""
    numbers = [
        conn.execute(
            "SELECT count(*) FROM jobs WHERE source_n = (SELECT n FROM sources WHERE id = ?) AND state = ?"
            " AND stage <> ?",
            (source_id, state, Stage.FINAL.value),
        ).fetchone()[0]
        for state in ("queued", "running", "failed")
    ]
    return numbers[0] + numbers[1], numbers[2]


def _requeue(conn: Connection, job_id: str, now_us: int) -> None:
    conn.execute(
        "UPDATE jobs SET state = 'queued', attempts = 0, again = 0, not_before_us = ?, cause = NULL, finished_us = NULL"
        " WHERE id = ?",
        (now_us, job_id),
    )


def _job(row: Sequence[Any]) -> Job:
    return Job(row[0], Stage(row[1]), row[2], JobState(row[3]), row[4], row[5], row[6])
