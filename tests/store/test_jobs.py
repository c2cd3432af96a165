"""The durable jobs: at most one for each stage and subject, never lost, never for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.clock import DrivenClock
from omi_edge.domain import Job, JobState, SpeechSegment, Stage
from omi_edge.errors import NotFound
from omi_edge.store import jobs, segments
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from tests.helpers import PASSPHRASE, START_US
from tests.store.filling import CONVERSATIONS, SECOND, SOURCES, add_conversation, add_source, undone

STAGES = list(Stage)


def enqueue(conn: Connection, subject: str = "seg_a", stage: Stage = Stage.TRANSCRIBE, at: int = 0) -> Job:
    return jobs.enqueue(conn, stage, subject, now_us=START_US + at)


def due(conn: Connection, at: int = 0, stages: list[Stage] = STAGES, limit: int = 100) -> list[str]:
    return [job.id for job in jobs.due(conn, START_US + at, stages, limit)]


def recount(conn: Connection) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for stage, state, count in conn.execute("SELECT stage, state, count(*) FROM jobs GROUP BY stage, state"):
        found.setdefault(stage, {})[state] = count
    return found


def test_asking_twice_for_what_waits_is_asking_once(conn: Connection) -> None:
    first = enqueue(conn)
    assert (first.state, first.attempts, first.not_before_us, first.cause) == (JobState.QUEUED, 0, START_US, None)
    assert enqueue(conn, at=99) == first
    assert due(conn) == [first.id]
    assert enqueue(conn, stage=Stage.EMBED).id != first.id
    assert enqueue(conn, "seg_b").id != first.id


def test_asking_for_what_runs_has_it_run_once_more(conn: Connection) -> None:
    job = jobs.start(conn, enqueue(conn).id, START_US)
    assert (job.state, job.attempts) == (JobState.RUNNING, 1)
    assert enqueue(conn, at=1).state is JobState.RUNNING
    assert enqueue(conn, at=2).state is JobState.RUNNING
    assert due(conn, 100) == []
    jobs.finish(conn, job.id, JobState.DONE, None, START_US + 5)
    again = jobs.get(conn, job.id)
    assert (again.state, again.attempts, again.not_before_us) == (JobState.QUEUED, 0, START_US + 5)
    jobs.start(conn, job.id, START_US + 6)
    jobs.finish(conn, job.id, JobState.DONE, None, START_US + 7)
    assert jobs.get(conn, job.id).state is JobState.DONE  # once more, not for ever


def test_a_second_attempt_serves_whoever_asked_during_the_first(conn: Connection) -> None:
    job_id = enqueue(conn).id
    jobs.start(conn, job_id, START_US)
    enqueue(conn)
    jobs.retry(conn, job_id, START_US, "EngineTransient")
    jobs.start(conn, job_id, START_US)
    jobs.finish(conn, job_id, JobState.DONE, None, START_US)
    assert jobs.get(conn, job_id).state is JobState.DONE


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
def test_asking_for_what_has_ended_begins_anew(conn: Connection, state: JobState) -> None:
    job = jobs.start(conn, enqueue(conn).id, START_US)
    jobs.finish(conn, job.id, state, "cause", START_US + 1, "scripted")
    assert jobs.get(conn, job.id).cause == "cause"
    again = enqueue(conn, at=9)
    assert (again.id, again.state, again.attempts, again.cause, again.not_before_us) == (
        job.id, JobState.QUEUED, 0, None, START_US + 9
    )  # fmt: skip


def test_three_attempts_with_waits_then_a_failure_that_stays(conn: Connection) -> None:
    job_id = enqueue(conn).id
    now_us = 0
    for attempt, wait in ((1, 4), (2, 8)):
        assert jobs.start(conn, job_id, START_US + now_us).attempts == attempt
        jobs.retry(conn, job_id, START_US + now_us + wait * SECOND, "EngineTransient")
        waiting = jobs.get(conn, job_id)
        assert (waiting.state, waiting.cause, waiting.attempts) == (JobState.QUEUED, "EngineTransient", attempt)
        assert due(conn, now_us + wait * SECOND - 1) == []
        assert jobs.next_due_us(conn, STAGES) == START_US + now_us + wait * SECOND
        now_us += wait * SECOND
        assert due(conn, now_us) == [job_id]
    assert jobs.start(conn, job_id, START_US + now_us).attempts == 3
    jobs.finish(conn, job_id, JobState.FAILED, "EngineTransient", START_US + now_us)
    assert due(conn, 1000 * SECOND) == []
    assert jobs.next_due_us(conn, STAGES) is None
    assert [(job.id, job.cause) for job in jobs.failed(conn, 10)] == [(job_id, "EngineTransient")]


def test_an_attempt_that_came_to_no_result_does_not_count(conn: Connection) -> None:
    job_id = enqueue(conn).id
    jobs.start(conn, job_id, START_US)
    jobs.put_back(conn, job_id)
    assert (jobs.get(conn, job_id).state, jobs.get(conn, job_id).attempts) == (JobState.QUEUED, 0)
    jobs.start(conn, job_id, START_US)
    jobs.finish(conn, job_id, JobState.DONE, None, START_US)
    jobs.put_back(conn, job_id)  # it has ended meanwhile
    assert jobs.get(conn, job_id).state is JobState.DONE


def test_later_stages_and_earlier_askers_come_first(conn: Connection) -> None:
    first = enqueue(conn, "seg_a", Stage.TRANSCRIBE, at=0).id
    second = enqueue(conn, "seg_b", Stage.TRANSCRIBE, at=0).id
    third = enqueue(conn, "con_a", Stage.EMBED, at=5).id
    later = enqueue(conn, "con_b", Stage.EMBED, at=50).id
    assert due(conn, 10) == [third, first, second]
    assert due(conn, 50, limit=2) == [third, later]
    assert due(conn, 50, [Stage.TRANSCRIBE], limit=1) == [first]
    assert due(conn, 50, [Stage.EXTRACT]) == []
    assert jobs.next_due_us(conn, [Stage.EMBED]) == START_US + 5
    assert jobs.next_due_us(conn, [Stage.DIARIZE]) is None


async def test_what_a_crash_left_running_begins_anew_at_the_start(folder: Path, clock: DrivenClock) -> None:
    db = Database.open(folder, PASSPHRASE, clock)

    def crash(conn: Connection) -> None:
        for n, subject in enumerate(("running", "tried", "waiting", "far", "done")):
            job = enqueue(conn, subject)
            if n in (0, 1, 4):
                jobs.start(conn, job.id, START_US)
        tried = enqueue(conn, "tried").id
        jobs.retry(conn, tried, START_US, "cause")
        jobs.start(conn, tried, START_US)
        jobs.retry(conn, enqueue(conn, "far").id, START_US + 10**15, "a clock that was stepped")
        jobs.finish(conn, enqueue(conn, "done").id, JobState.DONE, None, START_US)
        # "done" was asked for while it ran: it waits again
        assert jobs.get(conn, enqueue(conn, "done").id).state is JobState.QUEUED

    await db.write(crash)
    await db.close()
    db = Database.open(folder, PASSPHRASE, clock)
    assert await db.write(lambda conn: jobs.sweep(conn, START_US + 7)) == 2
    found = await db.read(lambda conn: {job.subject_id: job for job in jobs.due(conn, START_US + 7, STAGES, 100)})
    assert set(found) == {"running", "tried", "waiting", "far", "done"}
    assert (found["running"].attempts, found["tried"].attempts) == (0, 1)  # the crash was not its attempt
    assert await db.write(lambda conn: jobs.sweep(conn, START_US + 7)) == 0
    await db.close()


def test_a_sweep_leaves_what_is_due_where_it_is(conn: Connection) -> None:
    first, second = enqueue(conn, "seg_a", at=1).id, enqueue(conn, "seg_b", at=0).id
    jobs.sweep(conn, START_US + 5)
    assert due(conn, 5) == [second, first]


steps = st.lists(
    st.tuples(st.sampled_from(["enqueue", "start", "finish", "fail", "retry", "put_back", "sweep"]), st.integers(0, 3)),
    max_size=25,
)


@given(steps)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_counts_are_right_and_no_job_is_lost(conn: Connection, steps: list[tuple[str, int]]) -> None:
    with undone(conn):
        asked: dict[int, str] = {}
        for step, n in steps:
            if step == "enqueue":
                asked[n] = jobs.enqueue(conn, STAGES[n], f"x_{n}", now_us=START_US).id
            elif n not in asked:
                continue
            elif step == "start":
                jobs.start(conn, asked[n], START_US)
            elif step in ("finish", "fail"):
                state = JobState.DONE if step == "finish" else JobState.FAILED
                jobs.finish(conn, asked[n], state, None, START_US)
            elif step == "retry":
                jobs.retry(conn, asked[n], START_US + 1, "cause")
            elif step == "put_back":
                jobs.put_back(conn, asked[n])
            else:
                jobs.sweep(conn, START_US)
            assert jobs.counts(conn) == recount(conn)
        jobs.sweep(conn, START_US)
        waiting = set(due(conn, 1))
        for job_id in asked.values():
            ended = jobs.get(conn, job_id).state in (JobState.DONE, JobState.FAILED)
            assert ended != (job_id in waiting)


def test_jobs_left_and_failed_are_counted_by_source(conn: Connection) -> None:
    add_source(conn)
    add_source(conn, SOURCES[1], device_id=None)
    add_conversation(conn, CONVERSATIONS[0], SOURCES[0])
    for n in range(3):
        segments.put(conn, SpeechSegment(f"seg_{n}", SOURCES[n // 2], START_US, START_US + 1, 1))
        enqueue(conn, f"seg_{n}")
    conversation_job = enqueue(conn, CONVERSATIONS[0], Stage.EXTRACT)
    assert jobs.of_source(conn, SOURCES[0]) == (3, 0)
    assert jobs.of_source(conn, SOURCES[1]) == (1, 0)
    jobs.start(conn, conversation_job.id, START_US)
    assert jobs.of_source(conn, SOURCES[0]) == (3, 0)
    jobs.finish(conn, conversation_job.id, JobState.FAILED, "EnginePermanent", START_US)
    assert jobs.of_source(conn, SOURCES[0]) == (2, 1)
    assert jobs.of_source(conn, "src_other") == (0, 0)


def test_failed_ones_are_listed_newest_first_up_to_a_limit(conn: Connection) -> None:
    ids = [enqueue(conn, f"seg_{n}").id for n in range(3)]
    for job_id in ids:
        jobs.finish(conn, job_id, JobState.FAILED, "cause", START_US)
    assert [job.id for job in jobs.failed(conn, 2)] == [ids[2], ids[1]]


def test_an_unknown_job_is_not_found(conn: Connection) -> None:
    with pytest.raises(NotFound):
        jobs.get(conn, "job_other")
    with pytest.raises(NotFound):
        jobs.start(conn, "job_other", START_US)
    with pytest.raises(NotFound):
        jobs.finish(conn, "job_other", JobState.DONE, None, START_US)
