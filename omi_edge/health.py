"""What `/health` and `omi-edge status` say, gathered from the parts of the daemon."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

from omi_edge import __version__
from omi_edge.clock import Clock
from omi_edge.config import Config
from omi_edge.domain import FetchState, LinkState, Notice, Stage
from omi_edge.errors import OmiEdgeError
from omi_edge.pipeline.devices import Devices
from omi_edge.pipeline.engines import ChosenEngines
from omi_edge.pipeline.microphone import MicrophoneState
from omi_edge.pipeline.spine import Spine
from omi_edge.pipeline.wyoming import WyomingState
from omi_edge.sandbox import network_refused
from omi_edge.store import audio, devices, jobs, notices, reprocessing, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.withheld import WithheldRow
from omi_edge.web import offline, offlinewire, shapes, wire


class Vitals(Protocol):
    """What there is to look at; implemented by the daemon."""

    @property
    def state(self) -> str:
        """Named state of the daemon."""

    @property
    def since_us(self) -> int:
        """Since when."""

    @property
    def clock(self) -> Clock:
        """The one clock."""

    @property
    def config(self) -> Config:
        """Settings in force."""

    @property
    def engines(self) -> ChosenEngines:
        """The engines."""

    @property
    def vault(self) -> Database | None:
        """The vault once it is open."""

    @property
    def pipeline(self) -> Spine | None:
        """The pipeline once it runs."""

    @property
    def wearables(self) -> Devices | None:
        """The pendants once they are looked for."""

    @property
    def microphone(self) -> MicrophoneState | None:
        """The microphone of this machine, when it is listened to."""

    @property
    def wyoming(self) -> WyomingState | None:
        """The Wyoming server, when there is one."""

    @property
    def withheld(self) -> WithheldRow | None:
        """What the owner withholds now."""

    @property
    def address(self) -> str:
        """Base URL of the API on TCP, empty without one."""

    @property
    def progress(self) -> dict[str, float]:
        """Long work under way."""


class Watch:
    """Remembers since when each part has been in its state."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[str, int]] = {}

    def part(self, name: str, state: str, now_us: int, *, critical: bool = False, advice: str = "") -> wire.Part:
        """Return the part as it is now."""
        known = self._since.get(name)
        if known is None or known[0] != state:
            self._since[name] = known = (state, now_us)
        return wire.Part(name, state, critical, iso(known[1]), advice)


async def health_of(vitals: Vitals, watch: Watch) -> wire.Health:
    """Check each part and sum them up in one word."""
    now_us = vitals.clock.utc_us()
    parts = [await _vault(vitals, watch, now_us), *_pipeline(vitals, watch, now_us)]
    parts += await _stored_audio(vitals, watch, now_us)
    parts += await _final_pass(vitals, watch, now_us)
    parts += await _made_anew(vitals, watch, now_us)
    for what, fraction in vitals.progress.items():
        parts.append(watch.part(what, "busy", now_us, advice=f"{fraction:.0%} done; please wait."))
    broken = [part for part in parts if part.state == "failed"]
    if any(part.critical for part in broken) or vitals.state in ("failed", "stopped"):
        word = "critical"
    elif broken or any(part.state == "degraded" for part in parts):
        word = "degraded"
    else:
        word = "healthy"
    return wire.Health(word, vitals.state, parts)


async def status_of(vitals: Vitals) -> wire.Status:
    """Gather figures and notices."""
    database = vitals.vault

    def read(conn: Connection) -> dict[str, Any]:
        return {
            "rows": devices.list_all(conn),
            "sources": [_source(row) for row in sources.list_all(conn)],
            "jobs": jobs.counts(conn),
            "audio": audio.totals(conn),
            "notices": [notice_item(notice) for notice in notices.active(conn)],
            "failed_jobs": [
                {"id": job.id, "stage": job.stage.value, "subject_id": job.subject_id, "cause": job.cause}
                for job in jobs.failed(conn, 20)
            ],
        }

    found: dict[str, Any] = {"rows": [], "sources": [], "jobs": {}, "audio": {}, "notices": [], "failed_jobs": []}
    if database is not None:
        found = await database.read(read)
    pendants = vitals.wearables
    states = [pendants.state(row.address) for row in found["rows"]] if pendants is not None else []
    known = [shapes.device_item(row, state) for row, state in zip(found.pop("rows"), states, strict=False)]
    return wire.Status(
        version=__version__,
        state=vitals.state,
        since=iso(vitals.since_us),
        vault=str(database.path) if database is not None else "",
        engines=[
            wire.EngineState(e.name, e.state, e.pid, e.starts, e.failures, round(e.busy_us / 1e6, 3))
            for e in vitals.engines.processes
        ],
        speeds=[
            wire.Speed(tier.name, tier.engine, _rounded(tier.real_time_factor))
            for tier in vitals.engines.tiers.values()
        ],
        progress=[{"what": what, "fraction": round(done, 3)} for what, done in vitals.progress.items()],
        network=network_refused(),
        web=vitals.address,
        devices=known,
        recording=shapes.recording(vitals.withheld),
        microphone=_microphone(vitals.microphone),
        final=await _final(vitals),
        wyoming=_wyoming(vitals.wyoming),
        offline=await _stored(vitals),
        **found,
    )


def iso(at_us: int) -> str:
    """Return RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def notice_item(notice: Notice) -> wire.NoticeItem:
    """Return a notice as the API shows it."""
    return wire.NoticeItem(
        notice.id, notice.code, notice.severity.value, list(notice.subject_ids), notice.message, iso(notice.since_us),
        iso(notice.last_us), notice.count, iso(notice.acknowledged_us) if notice.acknowledged_us else None,
    )  # fmt: skip


async def _vault(vitals: Vitals, watch: Watch, now_us: int) -> wire.Part:
    if vitals.vault is None:
        return watch.part("vault", "busy" if vitals.state == "starting" else "off", now_us, critical=True)
    try:
        await vitals.vault.read(lambda conn: conn.execute("SELECT count(*) FROM settings").fetchone())
    except OmiEdgeError as error:
        return watch.part("vault", "failed", now_us, critical=True, advice=str(error))
    return watch.part("vault", "ok", now_us, critical=True)


def _pipeline(vitals: Vitals, watch: Watch, now_us: int) -> list[wire.Part]:
    spine = vitals.pipeline
    parts = []
    if spine is None:
        return [watch.part("capture", "off", now_us)]
    ended = spine.failed_tasks()
    parts.append(
        watch.part(
            "jobs",
            "failed" if "jobs" in ended else "busy" if spine.jobs.working else "ok",
            now_us,
            critical=True,
            advice="Restart the daemon; the log names the cause." if "jobs" in ended else "",
        )
    )
    if spine.disk_full:
        advice = "Free space on the disk of the data folder; audio waits in memory for some minutes."
        parts.append(watch.part("capture", "failed", now_us, critical=True, advice=advice))
    else:
        parts.append(_capture(vitals, watch, now_us))
    for process in vitals.engines.processes:
        state = {"unloaded": "ok", "idle": "ok", "busy": "busy"}[process.state]
        parts.append(watch.part(f"engine {process.name}", state, now_us))
    for tier in vitals.engines.tiers.values():
        slow = tier.name in spine.slow_tiers
        advice = "Text comes late, none is lost. Choose a smaller model or a faster machine." if slow else ""
        advice = " ".join(part for part in (tier.trouble, advice) if part)
        parts.append(watch.part(tier.name, "degraded" if advice else "ok", now_us, advice=advice))
    if vitals.microphone is not None:
        parts.append(_hearing(vitals.microphone, watch, now_us))
    if vitals.wyoming is not None:
        advice = vitals.wyoming.message
        parts.append(watch.part("wyoming", "degraded" if advice else "ok", now_us, advice=advice))
    parts.append(watch.part("web", "ok" if vitals.address else "off", now_us))
    return parts


def _hearing(state: MicrophoneState, watch: Watch, now_us: int) -> wire.Part:
    words = {"listening": "ok", "waiting": "degraded", "failed": "failed"}
    return watch.part("microphone", words[state.state], now_us, advice=state.message)


async def _stored(vitals: Vitals) -> list[offlinewire.OfflineState]:
    """Return how it stands with the stored audio of each pendant of which there is any to speak of."""
    pendants, database = vitals.wearables, vitals.vault
    if pendants is None or database is None:
        return []

    def read(conn: Connection) -> list[offlinewire.OfflineState]:
        addresses = {row.device_id for row in sources.list_all(conn) if row.kind == "pendant" and row.device_id}
        return [offline.state_of(conn, address, pendants.fetching(address), 0) for address in sorted(addresses)]

    busy = (FetchState.FETCHING.value, FetchState.WAITING.value)
    return [one for one in await database.read(read) if one.state in busy or one.waiting_bytes]


async def _stored_audio(vitals: Vitals, watch: Watch, now_us: int) -> list[wire.Part]:
    try:
        found = await _stored(vitals)
    except OmiEdgeError:  # the part "vault" tells
        return []
    if not found:
        return [watch.part("stored audio", "ok", now_us)] if vitals.wearables is not None else []
    waits = next((one.message for one in found if one.state == FetchState.WAITING.value), None)
    if waits is not None:
        return [watch.part("stored audio", "degraded", now_us, advice=waits)]
    held = sum(one.held for one in found)
    busy = any(one.state == FetchState.FETCHING.value or one.waiting_seconds for one in found)
    advice = f"{held} held until you say whether to keep them: `omi-edge devices held`." if held else ""
    return [watch.part("stored audio", "busy" if busy else "ok", now_us, advice=advice)]


async def _final(vitals: Vitals) -> wire.FinalPass | None:
    spine, database = vitals.pipeline, vitals.vault
    if spine is None or database is None or not spine.final.engine:
        return None
    waiting = await database.read(reprocessing.waiting_final)
    final, working = spine.final, spine.jobs.working.get(Stage.FINAL.value)
    return wire.FinalPass(final.engine, waiting, working, final.why if waiting else "", final.trouble)


async def _final_pass(vitals: Vitals, watch: Watch, now_us: int) -> list[wire.Part]:
    try:
        final = await _final(vitals)
    except OmiEdgeError:  # the part "vault" tells
        return []
    if final is None:
        return []
    if final.trouble:
        advice = f"{final.waiting} wait with the text that was heard live. {_sentence(final.trouble)}"
        return [watch.part("final pass", "degraded", now_us, advice=advice)]
    advice = f"{final.waiting} wait: {final.why}." if final.why else ""
    return [watch.part("final pass", "busy" if final.working else "ok", now_us, advice=advice)]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


async def _made_anew(vitals: Vitals, watch: Watch, now_us: int) -> list[wire.Part]:
    """Tell that transcripts could not be made anew, until somebody has seen why."""
    if vitals.vault is None:
        return []
    try:
        failed = await vitals.vault.read(lambda conn: notices.unseen(conn, "reprocess-failed"))
    except OmiEdgeError:  # the part "vault" tells
        return []
    if not failed:
        return [watch.part("transcripts made anew", "ok", now_us)]
    advice = f"{failed} could not be; `omi-edge notices` says why, and how to try again."
    return [watch.part("transcripts made anew", "degraded", now_us, advice=advice)]


def _capture(vitals: Vitals, watch: Watch, now_us: int) -> wire.Part:
    pendants = vitals.wearables
    states = pendants.states if pendants is not None else []
    if pendants is not None and pendants.broken:
        return watch.part("capture", "failed", now_us, critical=True,
                          advice="Restart the daemon; the log names the cause.")  # fmt: skip
    if not states:
        return watch.part("capture", "off", now_us, advice="No pendant is paired; `omi-edge devices pair` does it.")
    if vitals.withheld is not None:
        return watch.part("capture", "off", now_us, advice="Nothing is recorded, as you wished; see `omi-edge resume`.")
    # a pendant that is away is a pendant at work elsewhere; what is in the way here is ours to mend
    wrong = [state for state in states if state.state in (LinkState.UNAVAILABLE, LinkState.REFUSED)]
    if wrong:
        return watch.part("capture", "degraded", now_us, critical=True, advice=wrong[0].message)
    heard = any(state.state is LinkState.CONNECTED for state in states)
    return watch.part("capture", "ok" if heard else "degraded", now_us, critical=True,
                      advice="" if heard else "No pendant is connected: away, off, or held by a phone.")  # fmt: skip


def _microphone(state: MicrophoneState | None) -> wire.MicrophoneItem | None:
    if state is None:
        return None
    lost = round(state.lost_us / 1e6, 3)
    return wire.MicrophoneItem(state.state, iso(state.since_us), state.name, state.level_db, lost, state.message)


def _wyoming(state: WyomingState | None) -> wire.WyomingItem | None:
    if state is None:
        return None
    return wire.WyomingItem(state.address, state.lan, state.clients, state.answered, state.announced, state.message)


def _source(row: sources.SourceRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "name": row.name,
        "device_id": row.device_id,
        "client_id": row.client_id,
        "heard_until": iso(row.heard_until_us) if row.heard_until_us else None,
        "lost_frames": row.lost_frames,
        "audio_bytes": row.audio_bytes,
        "dropped_bytes": row.dropped_bytes,
        "dropped_seconds": round(row.dropped_us / 1e6, 1),
        "time_known": row.time_known,
    }


def _rounded(factor: float | None) -> float | None:
    return None if factor is None else round(factor, 3)
