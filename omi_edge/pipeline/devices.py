"""The pendants of this machine: found, paired, listened to and forgotten; and what their gestures do."""

from __future__ import annotations

import asyncio
import functools
import logging

import msgspec

from omi_edge import gatt
from omi_edge.capture import device
from omi_edge.capture.absence import Witness
from omi_edge.capture.device import Storage
from omi_edge.capture.greeting import introduce
from omi_edge.capture.link import Link, Radio
from omi_edge.clock import Clock
from omi_edge.config import DeviceConfig
from omi_edge.domain import (
    DeviceInfo,
    DeviceState,
    FetchProgress,
    FetchState,
    LinkState,
    Security,
    Sighting,
    Withholding,
)
from omi_edge.errors import (
    AttRefused,
    BadInput,
    BadPeripheral,
    BondLost,
    LinkLost,
    LinkUnavailable,
    NotEncrypted,
    NotReady,
    PairingFailed,
    PendantAbsent,
)  # fmt: skip
from omi_edge.events import Bus
from omi_edge.pipeline.spine import Spine
from omi_edge.pipeline.wearable import Wearable
from omi_edge.pipeline.withhold import Withhold
from omi_edge.store import bookmarks, devices, notices, offline, sources
from omi_edge.store.bookmarks import BookmarkRow
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.devices import DeviceRow

log = logging.getLogger(__name__)

PAIR_SCAN_SECONDS = 10.0
MANY_FILES = 1000
"""A second word above this is no file count: the status is of the single-file kind (dossier §6.4)."""


class Stored(msgspec.Struct, frozen=True):
    """What a pendant holds, as its status tells without a command."""

    protocol: Storage
    used_bytes: int | None = None
    free_bytes: int | None = None
    items: int | None = None
    """Records of a ring, files of the multi-file kind."""
    clock_valid: bool | None = None


class Devices:
    """All remembered pendants. Without ``listen`` they are managed but not listened to."""

    def __init__(
        self, db: Database, clock: Clock, bus: Bus, spine: Spine, withhold: Withhold, config: DeviceConfig,
        radio: Radio | None, *, listen: bool,
    ) -> None:  # fmt: skip
        self._db = db
        self._clock = clock
        self._bus = bus
        self._spine = spine
        self._withhold = withhold
        self._config = config
        self._radio = radio
        self._listen = listen and radio is not None
        self._wearables: dict[str, Wearable] = {}
        self._witnesses: dict[str, Witness] = {}
        self._pairing = asyncio.Lock()

    async def start(self) -> None:
        """Begin to look for every remembered pendant."""
        await self._db.write(lambda conn: devices.close_open(conn, self._clock.utc_us()))
        await self._attend_all()

    async def stop(self) -> None:
        """Disconnect from all; what was heard is stored."""
        await asyncio.gather(*(wearable.stop() for wearable in self._wearables.values()))
        self._wearables.clear()
        if self._radio is not None:
            await self._radio.close()

    def reconfigure(self, config: DeviceConfig) -> None:
        """Take over settings; encryption holds from the next connection on."""
        self._config = config
        for wearable in self._wearables.values():
            wearable.config = config

    @property
    def states(self) -> list[DeviceState]:
        """Of the pendants that are listened to."""
        return [wearable.state for wearable in self._wearables.values()]

    @property
    def broken(self) -> bool:
        """Whether the task of one ended although it should not have."""
        return any(wearable.broken for wearable in self._wearables.values())

    def state(self, address: str) -> DeviceState:
        """Return how a pendant stands."""
        wearable = self._wearables.get(address.lower())
        return wearable.state if wearable is not None else DeviceState(LinkState.OFF, self._clock.utc_us())

    async def scan(self, seconds: float) -> list[Sighting]:
        """Look for pendants. Raises LinkUnavailable."""
        found = await self._the_radio().scan(seconds)
        seen = {sighting.address.lower() for sighting in found}
        for address, wearable in self._wearables.items():
            connected = wearable.state.state is LinkState.CONNECTED
            if connected and address not in seen:  # it does not advertise, but it is here
                found.append(Sighting(wearable.address, wearable.info.name, wearable.state.rssi, self._clock.boot_us()))
            elif address in seen and not connected:
                wearable.hurry()
        return found

    async def pair(self, address: str | None, name: str | None) -> DeviceRow:
        """Remember a pendant, and bond with it where policy and pendant allow; then listen to it.

        Without an address: the only one in sight. Raises PendantAbsent, BadInput for several in sight, BadPeripheral,
        PairingFailed or NotEncrypted where encryption is required, LinkUnavailable.
        """
        radio = self._the_radio()
        if name is not None:
            devices.check_name(name)  # before anything is scanned or disconnected for it
        async with self._pairing:
            address = address or await self._only_one_in_sight(radio)
            known = self._wearables.get(address.lower())
            if known is not None and self._well_connected(known):
                return await self.rename(address, name) if name else await self._row(address)
            rows = await self._db.read(devices.list_all)
            radio.trust([*(row.address for row in rows), address])
            if known is not None:
                await self._let_go(known)
            link = radio.link(address)
            try:
                info, bonded = await self._introduce(link)
                await link.close()
                row = await self._db.write(functools.partial(self._remember, info=info, name=name, bonded=bonded))
            finally:
                await link.close()
                # whatever came of it, every pendant that is remembered is listened to again
                await self._attend_all()
            return row

    async def forget(self, address: str) -> None:
        """Forget a pendant and its bond; its recordings stay. Raises NotFound."""
        async with self._pairing:
            row = await self._row(address)
            wearable = self._wearables.get(row.address.lower())
            if wearable is not None:
                await self._let_go(wearable)
            if self._radio is not None and self._radio.can_pair:
                try:
                    await self._radio.link(row.address).unpair()
                except (PairingFailed, LinkUnavailable) as error:
                    log.warning("the bond stays with the system", extra={"cause": error.slug})

            def work(conn: Connection) -> None:
                self._forget(conn, address)
                for notice in notices.active(conn):
                    if row.address in notice.subject_ids:
                        notices.clear(conn, notice.code, notice.subject_ids)

            await self._db.write(work)
            self._spine.recovery.poke()
            self._witnesses.pop(row.address.lower(), None)
            await self._attend_all()

    async def rename(self, address: str, name: str) -> DeviceRow:
        """Give a pendant another name here. Raises NotFound or BadInput."""
        row = await self._db.write(lambda conn: devices.rename(conn, address, name))
        if (wearable := self._wearables.get(row.address.lower())) is not None:
            wearable.name = row.name
        return row

    async def set(self, address: str, led: int | None, mic_gain: int | None, own_name: str | None) -> DeviceState:
        """Change settings on a connected pendant. Raises NotFound, BadInput, LinkLost, AttRefused."""
        wearable = await self._connected(address)
        state = await wearable.set(led, mic_gain, own_name)
        if own_name is not None:
            await self._db.write(lambda conn: devices.note(conn, wearable.address, own_name=own_name))
        return state

    async def stored(self, address: str) -> Stored:
        """Say what a connected pendant holds; only its status is read. Raises NotFound, LinkLost."""
        wearable = await self._connected(address)
        protocol = device.storage_of(wearable.info)
        if protocol is Storage.NONE:
            return Stored(protocol)
        try:
            return stored_of(protocol, await wearable.read(gatt.STORAGE_STATUS))
        except (AttRefused, BadPeripheral, NotEncrypted):
            return Stored(protocol)

    def fetching(self, address: str) -> FetchProgress:
        """Return how the fetching of what a pendant stored stands."""
        wearable = self._wearables.get(address.lower())
        return wearable.fetch.state if wearable is not None else FetchProgress(FetchState.AWAY, self._clock.utc_us())

    async def fetch_again(self, address: str) -> None:
        """Look again for what a pendant stored. Raises NotFound, NotReady, LinkLost; BadInput if it has no storage."""
        wearable = await self._connected(address)
        if wearable.state.state is not LinkState.CONNECTED:
            raise LinkLost(
                f"{wearable.name} is not connected. Bring it near; what it stored is then fetched without being asked."
            )
        if wearable.info.firmware and device.storage_of(wearable.info) is Storage.NONE:
            raise BadInput(f"{wearable.name} stores no audio: not this model, or not with this firmware.")
        if not wearable.fetch.again():
            raise NotReady(
                f"{wearable.name} has only just connected and is still being greeted; ask again in a moment."
            )

    async def bookmark(self, source_id: str, by: str) -> BookmarkRow:
        """Mark this moment of a source. Raises NotFound."""
        now_us = self._clock.utc_us()
        row = await self._db.write(functools.partial(bookmarks.add, source_id=source_id, at_us=now_us, by=by))
        self._bus.publish("bookmark", now_us, id=row.id, source_id=source_id, moment_us=row.at_us)
        return row

    async def gesture(self, act: str, source_id: str) -> str:
        """Do what a gesture is set to; return what happened."""
        if act == "bookmark":
            await self.bookmark(source_id, "gesture")
        elif act == "conversation":
            await self._spine.end_talk(source_id)
        elif self._withhold.current is not None:
            await self._withhold.end("gesture")
            return "resume"
        else:
            kind = Withholding.MUTED if act == "mute" else Withholding.OFF_RECORD
            await self._withhold.begin(kind, None if act == "mute" else self._config.off_record, "gesture")
        return act

    async def _introduce(self, link: Link) -> tuple[DeviceInfo, bool]:
        """Connect for the first time: hear who it is, and bond."""
        try:
            sighting = await link.connect()
        except BondLost:  # the cure for that is to pair, and the old key is in the way
            await link.unpair()
            sighting = await link.connect()
        if not (link.offers(gatt.AUDIO_DATA) and link.offers(gatt.AUDIO_CODEC)):
            raise BadPeripheral("this device has a pendant's service but none of its audio: it is no Omi pendant.")
        bonded = await self._bond(link)
        return await introduce(link, sighting.name), bonded

    async def _bond(self, link: Link) -> bool:
        if link.security is Security.BONDED:
            return True
        if self._config.require_encryption == "off" or not self._the_radio().can_pair:
            return False
        try:
            await link.pair()
        except PairingFailed as error:
            if self._config.require_encryption == "require":
                raise
            log.warning("the pendant stays unpaired", extra={"cause": error.slug})
            return False
        return True

    def _forget(self, conn: Connection, address: str) -> None:
        source = sources.for_device(conn, address)
        if source is not None:
            self._spine.ledger.gone(conn, source.id)
            offline.finalize(conn, source.id)  # what was fetched is heard, although nobody frees it there any more
        devices.forget(conn, address)

    def _remember(self, conn: Connection, info: DeviceInfo, name: str | None, bonded: bool) -> DeviceRow:
        row = devices.remember(
            conn, address=info.address, name=name or info.name or "Omi", own_name=info.name, now_us=self._clock.utc_us()
        )
        if name is not None and row.name != name:
            devices.rename(conn, info.address, name)
        devices.note(
            conn, info.address, model=info.model, firmware=info.firmware, hardware=info.hardware,
            manufacturer=info.manufacturer, seen_us=self._clock.utc_us(),
            security=Security.BONDED.value if bonded else None,
        )  # fmt: skip
        return devices.get(conn, info.address)

    async def _only_one_in_sight(self, radio: Radio) -> str:
        found = await radio.scan(PAIR_SCAN_SECONDS)
        if not found and (here := sum(state.state is LinkState.CONNECTED for state in self.states)):
            raise PendantAbsent(
                f"no other pendant is in sight than {here} that omi-edge is connected to already. Name the address of "
                "one to pair it anew."
            )
        if not found:
            raise PendantAbsent(
                "no pendant is in sight. Is it charged, switched on and near? One that is connected to a phone cannot "
                "be seen: close the Omi app there, or switch the phone's Bluetooth off."
            )
        if len(found) > 1:
            raise BadInput(f"{len(found)} pendants are in sight; name the address of one (`omi-edge devices scan`).")
        return found[0].address

    async def _connected(self, address: str) -> Wearable:
        row = await self._row(address)
        wearable = self._wearables.get(row.address.lower())
        if wearable is None:
            raise NotReady("no daemon listens to this pendant; `omi-edge run` does.")
        return wearable

    async def _row(self, address: str) -> DeviceRow:
        return await self._db.read(lambda conn: devices.get(conn, address))

    def _well_connected(self, wearable: Wearable) -> bool:
        """Whether pairing anew could only cost audio."""
        state = wearable.state
        wanted = self._config.require_encryption != "off" and self._the_radio().can_pair
        return state.state is LinkState.CONNECTED and (state.security is Security.BONDED or not wanted)

    async def _let_go(self, wearable: Wearable) -> None:
        self._wearables.pop(wearable.address.lower(), None)
        await wearable.stop()

    async def _attend_all(self) -> None:
        """Listen to every pendant that is remembered; harmless for those that are listened to."""
        rows = await self._db.read(devices.list_all)
        self._trust(rows)
        for row in rows:
            if row.address.lower() not in self._wearables:
                self._attend(row)

    def _attend(self, row: DeviceRow) -> None:
        if not self._listen or self._radio is None:
            return
        wearable = Wearable(
            row, self._radio.link(row.address), self._witnesses.setdefault(row.address.lower(), Witness()),
            db=self._db, clock=self._clock, bus=self._bus, spine=self._spine, config=self._config, acts=self,
        )  # fmt: skip
        self._wearables[row.address.lower()] = wearable
        wearable.start()

    def _trust(self, rows: list[DeviceRow]) -> None:
        if self._radio is not None:
            self._radio.trust([row.address for row in rows])

    def _the_radio(self) -> Radio:
        if self._radio is None:
            raise LinkUnavailable("Bluetooth is switched off in the settings (device.bluetooth).")
        return self._radio


def stored_of(protocol: Storage, value: bytes) -> Stored:
    """Read the storage status, little-endian words; longer and shorter ones are told as far as they go (dossier §6)."""
    words = [int.from_bytes(value[at : at + 4], "little") for at in range(0, len(value) - 3, 4)]
    if protocol is Storage.MULTI_FILE and len(words) >= 2 and words[1] > MANY_FILES:
        protocol = Storage.SINGLE_FILE
    if not words:
        return Stored(protocol)
    if protocol is Storage.SINGLE_FILE or len(words) < 4:
        return Stored(protocol, used_bytes=words[0])
    if protocol is Storage.MULTI_FILE:
        return Stored(protocol, used_bytes=words[0], items=words[1])
    return Stored(protocol, words[0], words[2], words[1], bool(words[3]))
