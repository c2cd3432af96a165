"""Runs the durable jobs: in order, again after a transient failure, never for ever.

A job's result, its final state and the jobs that follow are one transaction; so a crash at any point leaves either
all of it or nothing, and the job runs again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from omi_edge.clock import Clock
from omi_edge.domain import Job, JobState, Stage
from omi_edge.errors import DiskFull, EngineTransient, OmiEdgeError, VaultBusy
from omi_edge.events import Bus
from omi_edge.store import jobs
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database

log = logging.getLogger(__name__)

ATTEMPTS = 3
FIRST_WAIT_SECONDS = 4.0
LAST_WAIT_SECONDS = 10.0
DISK_WAIT_SECONDS = 10.0
TRANSIENT = (EngineTransient, VaultBusy, TimeoutError, ConnectionError)

LANES: tuple[tuple[Stage, ...], ...] = (
    (Stage.TRANSCRIBE,),
    (Stage.DIARIZE, Stage.ASSEMBLE, Stage.EXTRACT, Stage.EMBED),
    (Stage.REPROCESS,),
    (Stage.FINAL,),
)
"""Stages that run side by side; inside a lane one job at a time."""


_SUBJECT = {stage: "segment" if stage is Stage.TRANSCRIBE else "conversation" for stage in Stage}
"""What the subject of a stage is, as the log names it."""


class Result(msgspec.Struct, frozen=True):
    """What a stage made of a job."""

    commit: Callable[[Connection], Any]
    """Writes the result; runs in the same transaction as the end of the job."""
    after: Callable[[Any], None] = lambda _: None
    """Told, on the loop, what ``commit`` returned, once it is durable."""
    follow: tuple[tuple[Stage, str], ...] = ()
    engine: str = ""
    told: Callable[[Any], dict[str, Any]] = lambda _: {}
    """Ids that the log names beside the job's own, from what ``commit`` returned."""
    later: bool = False
    """Nothing is settled: the job goes on later, when its gate lets it, and this was no attempt."""


class StageWork(msgspec.Struct, frozen=True):
    """How one stage is done, and what is left when it failed for good."""

    run: Callable[[str], Awaitable[Result]]
    """Takes the subject's id."""
    give_up: Callable[[str, str], Awaitable[Result]]
    """Takes the subject's id and the cause; keeps the flow going without this stage's result."""
    gate: Callable[[], Awaitable[float | None]] | None = None
    """Asked before each job: after how many seconds to ask again, None when it may begin. A poke asks at once."""


class JobRunner:
    """All lanes. ``poke`` after enqueueing; ``run`` until cancelled."""

    def __init__(self, db: Database, clock: Clock, bus: Bus, stages: Mapping[Stage, StageWork]) -> None:
        self._db = db
        self._clock = clock
        self._bus = bus
        self._stages = stages
        self._pokes = [asyncio.Event() for _ in LANES]
        self.on_failed: Callable[[Job], Awaitable[None]] | None = None
        self.working: dict[str, str] = {}
        """Subject under work by stage, for status."""

    def poke(self) -> None:
        """Look for work now."""
        for event in self._pokes:
            event.set()

    async def run(self) -> None:
        """Work until cancelled; jobs that a crash left running begin anew."""
        swept = await self._db.write(lambda conn: jobs.sweep(conn, self._clock.utc_us()))
        if swept:
            log.warning("jobs were interrupted and begin anew", extra={"jobs": swept})
        async with asyncio.TaskGroup() as group:
            for stages, event in zip(LANES, self._pokes, strict=True):
                group.create_task(self._run_lane(stages, event))

    async def _run_lane(self, stages: tuple[Stage, ...], event: asyncio.Event) -> None:
        unsettled = ""
        while True:
            release = self._clock.hold()  # from the look for work to its end: simulated time waits for the work
            try:
                event.clear()
                try:
                    if unsettled:  # the file could not take what became of it: it begins anew
                        await self._db.write(functools.partial(jobs.put_back, job_id=unsettled))
                        unsettled = ""
                    due = await self._db.read(lambda conn: jobs.due(conn, self._clock.utc_us(), stages, limit=1))
                    shut = await self._shut(due[0].stage) if due else None
                    if due and shut is None:
                        unsettled = due[0].id
                        await self._do(due[0])
                        unsettled = ""
                        continue
                    next_us = await self._next_us(stages, shut)
                except (DiskFull, VaultBusy) as error:
                    log.warning("jobs wait", extra={"cause": error.slug})
                    next_us = self._clock.utc_us() + round(DISK_WAIT_SECONDS * 1e6)
            finally:
                release()
            timer = None
            if next_us is not None:
                timer = self._clock.call_later(max(0.0, (next_us - self._clock.utc_us()) / 1e6), event.set)
            await event.wait()
            if timer is not None:
                timer.cancel()

    async def _next_us(self, stages: tuple[Stage, ...], shut: float | None) -> int | None:
        if shut is not None:
            return self._clock.utc_us() + round(shut * 1e6)
        return await self._db.read(lambda conn: jobs.next_due_us(conn, stages))

    async def _shut(self, stage: Stage) -> float | None:
        gate = self._stages[stage].gate
        return await gate() if gate is not None else None

    async def _do(self, job: Job) -> None:
        job = await self._db.write(lambda conn: jobs.start(conn, job.id, self._clock.utc_us()))
        fields = {"stage": job.stage.value, _SUBJECT[job.stage]: job.subject_id, "attempt": job.attempts}
        log.info("job started", extra=fields)
        self.working[job.stage.value] = job.subject_id
        began_us = self._clock.work_us()
        try:
            result = await self._stages[job.stage].run(job.subject_id)
            if result.later:
                await self._db.write(lambda conn: jobs.put_back(conn, job.id))
                log.info("job ended", extra=fields | {"outcome": "later", "ms": self._elapsed_ms(began_us)})
                return
            outcome = await self._settle(job, result, JobState.DONE, None)
            log.info(
                "job ended",
                extra=fields
                | {"engine": result.engine, "outcome": "done", "ms": self._elapsed_ms(began_us)}
                | result.told(outcome),
            )
        except DiskFull:
            raise
        except TRANSIENT as error:
            cause = type(error).__name__
            if job.attempts < ATTEMPTS:
                wait = min(LAST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (job.attempts - 1))
                not_before_us = self._clock.utc_us() + round(wait * 1e6)
                await self._db.write(lambda conn: jobs.retry(conn, job.id, not_before_us, cause))
                log.warning(
                    "job ended",
                    extra=fields | {"outcome": "again", "cause": cause, "ms": self._elapsed_ms(began_us)},
                )
            else:
                await self._fail(job, cause, fields, began_us)
        except Exception as error:  # noqa: BLE001 whatever a stage raises must give its job a final state
            cause = type(error).__name__
            if not isinstance(error, OmiEdgeError):
                log.error("a stage is defective", extra=fields | {"cause": cause, "where": _where(error)})
            await self._fail(job, cause, fields, began_us)
        finally:
            self.working.pop(job.stage.value, None)

    async def _fail(self, job: Job, cause: str, fields: dict[str, Any], began_us: int) -> None:
        result = await self._stages[job.stage].give_up(job.subject_id, cause)
        await self._settle(job, result, JobState.FAILED, cause)
        log.error("job ended", extra=fields | {"outcome": "failed", "cause": cause, "ms": self._elapsed_ms(began_us)})
        if self.on_failed is not None:
            await self.on_failed(job)

    async def _settle(self, job: Job, result: Result, state: JobState, cause: str | None) -> Any:
        def commit(conn: Connection) -> Any:
            now_us = self._clock.utc_us()
            outcome = result.commit(conn)
            for stage, subject_id in result.follow:
                jobs.enqueue(conn, stage, subject_id, now_us=now_us)
            jobs.finish(conn, job.id, state, cause, now_us, engine=result.engine or None)
            return outcome

        outcome = await self._db.write(commit)
        self._bus.publish(
            "job", self._clock.utc_us(), stage=job.stage.value, subject_id=job.subject_id, state=state.value,
            cause=cause,
        )  # fmt: skip
        result.after(outcome)
        self.poke()
        return outcome

    def _elapsed_ms(self, began_us: int) -> int:
        return (self._clock.work_us() - began_us) // 1000


def _where(error: BaseException) -> str:
    """File and line of the innermost frame: enough to find a defect, nothing of its data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rsplit('omi_edge', 1)[-1]}:{trace.tb_lineno}" if trace else "?"
