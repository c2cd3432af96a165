"""Jobs end: after a transient failure by another attempt, after a permanent one with its cause, always in one piece."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.domain import Job, JobState, Stage
from omi_edge.errors import DiskFull, EnginePermanent, EngineTransient, VaultBusy
from omi_edge.events import Bus
from omi_edge.pipeline.jobs import JobRunner, Result, StageWork
from omi_edge.store import jobs, settings
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database

SUBJECT = "con_x"


class Script:
    """Stages that do what a test says, attempt by attempt."""

    def __init__(self, db: Database, clock: DrivenClock) -> None:
        self.db = db
        self.clock = clock
        self.bus = Bus()
        self.trouble: list[Exception] = []
        self.commit_trouble: list[Exception] = []
        self.begun_us: list[int] = []
        self.failed: list[Job] = []

    def stages(self) -> dict[Stage, StageWork]:
        return {stage: StageWork(self._work(stage), self._give_up) for stage in Stage}

    def _work(self, stage: Stage) -> Callable[[str], Awaitable[Result]]:
        async def run(subject_id: str) -> Result:
            self.begun_us.append(self.clock.utc_us())
            if self.trouble:
                raise self.trouble.pop(0)

            def commit(conn: Connection) -> None:
                settings.put(conn, f"test.{stage.value}", subject_id)
                if self.commit_trouble:
                    raise self.commit_trouble.pop(0)

            follow = ((Stage.EXTRACT, subject_id),) if stage is Stage.ASSEMBLE else ()
            return Result(commit, follow=follow, engine="scripted")

        return run

    async def _give_up(self, subject_id: str, cause: str) -> Result:
        return Result(lambda conn: settings.put(conn, "test.given_up", cause))

    async def note_failure(self, job: Job) -> None:
        self.failed.append(job)

    async def enqueue(self, stage: Stage) -> Job:
        return await self.db.write(lambda conn: jobs.enqueue(conn, stage, SUBJECT, now_us=self.clock.utc_us()))

    async def job(self, job: Job) -> Job:
        return await self.db.read(lambda conn: jobs.get(conn, job.id))

    async def setting(self, key: str) -> object:
        return await self.db.read(lambda conn: settings.get(conn, f"test.{key}"))


@pytest.fixture
def script(db: Database, clock: DrivenClock) -> Script:
    return Script(db, clock)


@contextlib.asynccontextmanager
async def running(script: Script) -> AsyncIterator[JobRunner]:
    runner = JobRunner(script.db, script.clock, script.bus, script.stages())
    runner.on_failed = script.note_failure
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_stage_hands_on_to_the_next(script: Script) -> None:
    first = await script.enqueue(Stage.ASSEMBLE)
    async with running(script):
        await script.clock.advance(1)
    assert (await script.job(first)).state is JobState.DONE
    counts = await script.db.read(jobs.counts)
    assert counts == {"assemble": {"done": 1}, "extract": {"done": 1}}
    assert await script.setting("extract") == SUBJECT


async def test_a_transient_failure_is_tried_again_after_four_and_eight_seconds(script: Script) -> None:
    script.trouble = [EngineTransient("x"), EngineTransient("x")]
    job = await script.enqueue(Stage.EXTRACT)
    async with running(script):
        await script.clock.advance(30)
    done = await script.job(job)
    assert (done.state, done.attempts) == (JobState.DONE, 3)
    first, second, third = script.begun_us
    assert (second - first, third - second) == (4_000_000, 8_000_000)


async def test_the_third_transient_failure_is_final_and_the_flow_goes_on(script: Script) -> None:
    script.trouble = [EngineTransient("x")] * 3
    job = await script.enqueue(Stage.EXTRACT)
    async with running(script):
        await script.clock.advance(60)
    failed = await script.job(job)
    assert (failed.state, failed.attempts, failed.cause) == (JobState.FAILED, 3, "EngineTransient")
    assert await script.setting("given_up") == "EngineTransient"
    assert [one.id for one in script.failed] == [job.id]
    assert [one.id for one in await script.db.read(lambda conn: jobs.failed(conn, 5))] == [job.id]


@pytest.mark.parametrize("trouble", [EnginePermanent("secret talk"), KeyError("secret talk")])
async def test_a_permanent_failure_is_not_tried_again_and_its_log_holds_no_content(
    script: Script, trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    script.trouble = [trouble]
    job = await script.enqueue(Stage.EXTRACT)
    async with running(script):
        await script.clock.advance(60)
    assert len(script.begun_us) == 1
    assert (await script.job(job)).state is JobState.FAILED
    ended = [record for record in caplog.records if record.getMessage() == "job ended"]
    assert [record.levelno for record in ended] == [logging.ERROR]
    assert "secret" not in caplog.text
    assert all("secret" not in str(vars(record)) for record in caplog.records)


async def test_each_job_logs_its_start_and_its_end(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    script.trouble = [EngineTransient("x")]
    await script.enqueue(Stage.EXTRACT)
    async with running(script):
        await script.clock.advance(10)
    lines = [(record.getMessage(), record.levelname) for record in caplog.records if "job" in record.getMessage()]
    assert lines == [
        ("job started", "INFO"), ("job ended", "WARNING"), ("job started", "INFO"), ("job ended", "INFO"),
    ]  # fmt: skip
    last = vars(caplog.records[-1])
    assert (last["stage"], last["conversation"], last["attempt"], last["engine"], last["outcome"]) == (
        "extract", SUBJECT, 2, "scripted", "done",
    )  # fmt: skip
    assert last["ms"] >= 0


@pytest.mark.parametrize("trouble", [DiskFull("full"), VaultBusy("busy")])
async def test_a_result_that_cannot_be_written_leaves_nothing_and_is_made_again(
    script: Script, trouble: Exception
) -> None:
    script.commit_trouble = [trouble]
    job = await script.enqueue(Stage.EXTRACT)
    async with running(script):
        await script.clock.advance(0.5)
        assert await script.setting("extract") is None
        await script.clock.advance(20)
    done = await script.job(job)
    assert done.state is JobState.DONE
    assert len(script.begun_us) == 2
    assert await script.setting("extract") == SUBJECT


async def test_jobs_that_a_crash_left_running_begin_anew(script: Script) -> None:
    job = await script.enqueue(Stage.EXTRACT)
    await script.db.write(lambda conn: jobs.start(conn, job.id, script.clock.utc_us()))
    async with running(script):
        await script.clock.advance(1)
    done = await script.job(job)
    assert (done.state, done.attempts) == (JobState.DONE, 1)


async def test_asked_for_again_while_it_runs_it_runs_once_more(script: Script) -> None:
    job = await script.enqueue(Stage.EXTRACT)
    stages = script.stages()
    inner = stages[Stage.EXTRACT].run

    async def run(subject_id: str) -> Result:
        result = await inner(subject_id)
        if len(script.begun_us) == 1:
            await script.enqueue(Stage.EXTRACT)
        return result

    stages[Stage.EXTRACT] = StageWork(run, stages[Stage.EXTRACT].give_up)
    runner = JobRunner(script.db, script.clock, script.bus, stages)
    task = asyncio.create_task(runner.run())
    await script.clock.advance(1)
    task.cancel()
    await asyncio.wait([task])
    assert len(script.begun_us) == 2
    assert (await script.job(job)).state is JobState.DONE
    assert await script.db.read(jobs.counts) == {"extract": {"done": 1}}


async def test_a_clock_that_stepped_back_keeps_no_job_waiting(script: Script) -> None:
    job = await script.enqueue(Stage.EXTRACT)
    script.clock.step_utc(-3600)
    async with running(script):
        await script.clock.advance(1)
    assert (await script.job(job)).state is JobState.DONE
