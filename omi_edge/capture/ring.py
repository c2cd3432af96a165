"""Fetches what the ring holds (generation C, dossier §6.5, §6.7): bounded reads, each record durable as it arrives.

Firmware 3.0.21 frees what it has sent, so a read must be taken as the only one; others free when told. After an
interruption a read begins where the ring begins: the record that we kept last is in it when it was not freed, and tells
whether it is still the same ring. Sequence numbers alone do not: a ring that was cleared counts from 0 again. What was
kept may have a hole, though, where a notification got lost and the link broke off before the check: then some of it
comes again at another place, and all that is still there is kept anew.
"""

from __future__ import annotations

import zlib

import msgspec

from omi_edge.capture import ringwire
from omi_edge.capture.blocks import RECORD_BYTES, digest, record_of_ring
from omi_edge.capture.dialogue import ANSWER_SECONDS, Dialogue
from omi_edge.capture.persevere import persevere
from omi_edge.capture.ringwire import ACK_NOT_READY, ACK_OK, ACK_OTHER_RING, ACK_OUT_OF_RANGE, Ack, Begin, Data, Done
from omi_edge.capture.stored import (
    FEW_RECORDS,
    GATHER_RECORDS,
    GATHER_SECONDS,
    LOOK_RECORDS,
    Loss,
    Stumble,
    Tally,
    Why,
    overlap,
)
from omi_edge.errors import BadPeripheral, LinkLost

READ_RECORDS = 512
"""Of one read: about 51 s of audio (dossier §6.5)."""
FEWEST_RECORDS = 32
"""Of one read where notifications get lost, which it shrinks to by and by; our choice, 3 s of audio."""


async def drain(talk: Dialogue, tally: Tally) -> None:
    """Fetch everything that is unread. Raises LinkError's family, and what the keeper raises."""
    await persevere(talk, tally, ringwire.STOP, _Fetch(talk, tally).once)


class _Fetch:
    """One session with a ring."""

    def __init__(self, talk: Dialogue, tally: Tally) -> None:
        self._talk = talk
        self._tally = tally
        self._enabled = False
        self._same = False
        """Whether the cursor is known to be of this ring."""
        self._doubtful = False
        """Whether what was kept last differs from what came for it: one of the two has a hole."""
        self._strange = False
        """Whether nothing of the little that was kept came again; that may have been a hole."""
        self._most = READ_RECORDS
        self._failed = 0
        """Records that are missing of a transfer that failed its check; it began where the cursor stands."""
        self._entry = tally.cursor
        """Where to go back to when the transfer fails its check."""
        self._aside: list[tuple[int, bytes]] = []
        """What came instead of what was kept, until it comes again; the pendant may free it as it sends."""

    async def once(self) -> bool:
        """Do one read and free it on the pendant; False when there is nothing to read."""
        info = await self._info()
        if not self._enabled:
            self._enabled = True
            await self._enable(info)
        await self._settle(info)
        if info.read_seq == info.write_seq:
            return False
        start = info.read_seq
        if self._doubtful:  # what is still there is kept anew
            self._doubtful = False
            await self._go_back(start)
        # at least up to the record that tells whether what was kept is whole
        count = min(max(self._most, self._tally.cursor.position - start), info.write_seq - start)
        next_seq = await self._read(start, count)
        await self._advance(next_seq, info)
        return True

    # --- where it stands ----------------------------------------------------------------------------------------------

    async def _info(self) -> ringwire.Info:
        await self._talk.write(ringwire.INFO)
        while True:
            answer = await self._answer("how its storage stands")
            if isinstance(answer, ringwire.Info):
                break
            if isinstance(answer, Ack) and answer.status != ACK_OK:
                raise _refused(answer.status)
        if answer.record_bytes != RECORD_BYTES or answer.read_seq > answer.write_seq:
            raise BadPeripheral(
                f"the pendant's storage has records of {answer.record_bytes} bytes, {answer.read_seq} to "
                f"{answer.write_seq}, which omi-edge cannot read; it is left alone."
            )
        return answer

    async def _enable(self, info: ringwire.Info) -> None:
        """Ask a pendant of the custody draft to free nothing by itself; for this connection."""
        if not info.capabilities & ringwire.WANTED:
            return
        await self._talk.write(ringwire.enable(info.capabilities & ringwire.WANTED))
        while not isinstance(await self._answer("what it was asked to do"), Ack):
            pass

    async def _settle(self, info: ringwire.Info) -> None:
        """Hold the cursor against the ring: another ring, or records that are gone."""
        if self._aside:
            await self._take_aside(info)
        tally, cursor = self._tally, self._tally.cursor
        strange = cursor.identity is not None and info.ring_id is not None and cursor.identity != info.ring_id
        # more than one read before the cursor is never left unfreed, so such a ring is another one
        unlike = info.ring_id is None and cursor.position - info.read_seq > READ_RECORDS
        if cursor.store == 0 or strange or unlike or cursor.position > info.write_seq:
            self._begin_ring(info.ring_id, info.read_seq, info.dropped)
            # durable before anything is read: what it frees unseen is missed from here on
            await tally.keeper.freed(tally.cursor)
        elif info.read_seq >= cursor.position:
            tally.cursor = msgspec.structs.replace(cursor, end=info.write_seq)  # with the first word to the keeper
            if not self._same:
                await tally.keeper.freed(tally.cursor)
            self._same = True
            await self._count_losses(info)
        self._failed = 0
        self._same = self._same or (info.ring_id is not None and info.ring_id == tally.cursor.identity)
        identity = info.ring_id if info.ring_id is not None else tally.cursor.identity
        tally.cursor = msgspec.structs.replace(
            tally.cursor, identity=identity, end=info.write_seq, dropped=info.dropped
        )
        tally.left((info.write_seq - tally.cursor.position) * RECORD_BYTES)

    async def _take_aside(self, info: ringwire.Info) -> None:
        """Keep what came in the place of other records, when it does not come again, as what it is: another ring's."""
        aside, self._aside = self._aside, []
        if info.read_seq <= aside[0][0]:
            return
        self._begin_ring(info.ring_id, aside[0][0], info.dropped)
        batch = [record_of_ring(self._tally.cursor.store, seq, raw) for seq, raw in aside]
        await self._tally.keep(batch, batch[-1].seq + 1)

    async def _count_losses(self, info: ringwire.Info) -> None:
        cursor = self._tally.cursor
        gone = info.read_seq - cursor.position
        if gone and self._failed:
            await self._lose(cursor.position, info.read_seq, Why.GARBLED, min(self._failed, gone))
        elif gone:
            # the newest of them were overwritten; those before them were freed before there was no more room
            overwritten = min(gone, max(0, info.dropped - cursor.dropped))
            await self._lose(cursor.position, info.read_seq - overwritten, Why.FREED)
            # with the note of it, so that it is not counted again
            self._tally.cursor = msgspec.structs.replace(self._tally.cursor, dropped=info.dropped)
            await self._lose(info.read_seq - overwritten, info.read_seq, Why.OVERWRITTEN)

    async def _lose(self, first: int, end: int, why: Why, records: int | None = None) -> None:
        if end > first:
            loss = Loss(self._tally.cursor.store, first, end - 1, end - first if records is None else records, why)
            await self._tally.lose(loss, end)

    def _begin_ring(self, identity: int | None, position: int, dropped: int) -> None:
        self._tally.begin_store(identity, position, dropped=dropped)
        self._entry = self._tally.cursor
        self._same = True

    # --- one transfer -------------------------------------------------------------------------------------------------

    async def _read(self, start: int, count: int) -> int:
        """Fetch records; return the number after the last once all of them are durable and checked."""
        self._entry = self._tally.cursor
        receipt = _Receipt(start, count)
        done = await self._receive(receipt)
        if done.status != ACK_OK:
            raise _refused(done.status)
        if not receipt.agrees(done):
            # without lengths in the data nobody knows what is missing, so nothing of it counts
            self._failed = max(1, done.next_seq - receipt.next_seq)
            self._tally.cursor = self._entry
            self._most = max(FEWEST_RECORDS, self._most // 4)
            raise Stumble("what came is not what the pendant sent")
        if receipt.next_seq == start:
            raise Stumble("nothing came although there is something")
        return receipt.next_seq

    async def _receive(self, receipt: _Receipt) -> Done:
        """Ask, and take a transfer to its end. However it ends, what came is kept."""
        try:
            await self._talk.write(ringwire.read(receipt.start, receipt.count))
            return await self._take(receipt)
        except LinkLost:
            await self._keep(receipt)
            raise
        except Stumble:
            try:
                await self._talk.hush(ringwire.STOP, lambda value: receipt.feed(ringwire.answer_of(value)))
            finally:
                await self._keep(receipt)
            raise
        except BaseException as error:
            # nothing may go on sending to nobody: what it sends it may free
            await self._talk.break_off(ringwire.STOP)
            while (value := self._talk.take()) is not None:
                receipt.feed(ringwire.answer_of(value))
            if not isinstance(error, Exception):  # cancelled; the keeper did not fail
                await self._keep(receipt)
            raise

    async def _take(self, receipt: _Receipt) -> Done:
        clock = self._talk.clock
        heard_us = kept_us = clock.boot_us()
        while True:
            now_us = clock.boot_us()
            until_us = heard_us + round(ANSWER_SECONDS * 1e6)
            if receipt.records:
                until_us = min(until_us, kept_us + round(GATHER_SECONDS * 1e6))
            value = await self._talk.next((until_us - now_us) / 1e6)
            now_us = clock.boot_us()
            if value is not None:
                heard_us = now_us
                kept_us = kept_us if receipt.records else now_us
                answer = ringwire.answer_of(value)
                if isinstance(answer, Begin):
                    await self._begins(receipt, answer)
                elif isinstance(answer, Ack) and answer.status != ACK_OK:
                    raise _refused(answer.status)
                receipt.feed(answer)
                if isinstance(answer, Done) and receipt.begun:
                    await self._keep(receipt, ended=True)
                    if not self._doubtful:
                        return answer
            elif now_us - heard_us >= ANSWER_SECONDS * 1e6:
                raise Stumble("it stopped sending")
            if now_us - kept_us >= GATHER_SECONDS * 1e6 or len(receipt.records) >= GATHER_RECORDS:
                await self._keep(receipt)
                kept_us = clock.boot_us()
            if self._doubtful:
                raise Stumble("what came is not what was kept")

    async def _go_back(self, start: int) -> None:
        """Let everything from ``start`` on be kept anew that is not final; the cursor that is kept moves with it."""
        cursor = self._tally.cursor
        kept = await self._tally.keeper.kept(cursor.store, start, 1)
        position = min([cursor.position, *(seq for seq, _ in kept)])
        self._tally.cursor = msgspec.structs.replace(cursor, position=position, tail=b"")

    async def _begins(self, receipt: _Receipt, begin: Begin) -> None:
        if receipt.begun or begin.start < receipt.start or begin.count > receipt.count:
            raise Stumble("it sends something else than was asked for")
        receipt.begin(begin)
        if begin.start > self._tally.cursor.position:
            await self._lose(self._tally.cursor.position, begin.start, Why.FREED)
            self._entry = self._tally.cursor

    async def _keep(self, receipt: _Receipt, *, ended: bool = False) -> None:
        """Make durable what has come; what we have already is compared and left out."""
        if self._aside:
            self._aside += receipt.records
            receipt.records.clear()
            return
        known = [raw for seq, raw in receipt.records if seq < self._tally.cursor.position]
        if known and not await self._compare(receipt, known, ended=ended):
            return
        if self._doubtful:
            receipt.records.clear()
            return
        store = self._tally.cursor.store
        batch = [record_of_ring(store, seq, raw) for seq, raw in receipt.records]
        if batch:
            await self._tally.keep(batch, batch[-1].seq + 1)
        receipt.records.clear()

    async def _compare(self, receipt: _Receipt, known: list[bytes], *, ended: bool) -> bool:
        """Hold what came again against what was kept; False when the records that decide have not come yet."""
        cursor, last = self._tally.cursor, receipt.records[-1][0]
        if last < cursor.position - 1:
            return False
        if digest(known[-1]) == cursor.tail or (self._same and not cursor.tail):
            del receipt.records[: len(known)]
            self._same = True
        elif self._same:
            # nothing of it may take the place of what is whole; what the pendant frees of it counts as lost
            self._doubtful = True
        else:
            kept = await self._tally.keeper.kept(cursor.store, receipt.records[0][0], LOOK_RECORDS)
            if kept and last < cursor.position - 1 + LOOK_RECORDS and not ended:
                return False
            if overlap(kept, b"".join(raw for _, raw in receipt.records)):
                self._same = self._doubtful = True
            elif kept and len(known) < FEW_RECORDS and not self._strange:
                self._strange = True
                self._aside = receipt.records[:]
                receipt.records.clear()
                raise Stumble("what came is not what was kept")
            else:
                self._begin_ring(cursor.identity, receipt.records[0][0], cursor.dropped)
        return True

    async def _advance(self, next_seq: int, info: ringwire.Info) -> None:
        """Free what was kept."""
        await self._talk.write(ringwire.advance(next_seq, info.ring_id))
        while not isinstance(answer := await self._answer("whether it gave records up"), Ack):
            pass
        if answer.status == ACK_OUT_OF_RANGE:
            now = await self._info()
            if now.ring_id != info.ring_id or not next_seq <= now.read_seq <= now.write_seq:
                raise Stumble("it does not give up what was fetched")
        elif answer.status != ACK_OK:
            raise _refused(answer.status)
        if next_seq >= self._tally.cursor.position:
            await self._tally.keeper.freed(self._tally.cursor)

    async def _answer(self, what: str) -> ringwire.Answer | None:
        value = await self._talk.next(ANSWER_SECONDS)
        if value is None:
            raise Stumble(f"it did not tell {what} within {ANSWER_SECONDS:g} s")
        return ringwire.answer_of(value)


class _Receipt:
    """What has come of a transfer of ``count`` records from ``start``."""

    def __init__(self, start: int, count: int) -> None:
        self.start = self.next_seq = start
        self.count = count
        self.begun = False
        self.records: list[tuple[int, bytes]] = []
        """Whole ones that are not durable yet."""
        self._end = start
        self._rest = bytearray()
        self._crc = 0
        self._excess = False

    def begin(self, begin: Begin) -> None:
        """Be told where it begins."""
        self.begun = True
        self.next_seq = begin.start
        self._end = begin.start + begin.count

    def feed(self, answer: ringwire.Answer | None) -> None:
        """Take a notification; all but data is passed over, and so is what comes before the beginning."""
        if not isinstance(answer, Data) or not self.begun:
            return
        self._crc = zlib.crc32(answer.payload, self._crc)
        self._rest += answer.payload
        while len(self._rest) >= RECORD_BYTES:
            raw = bytes(self._rest[:RECORD_BYTES])
            del self._rest[:RECORD_BYTES]
            if self.next_seq == self._end:
                self._excess = True
                continue
            self.records.append((self.next_seq, raw))
            self.next_seq += 1

    def agrees(self, done: Done) -> bool:
        """Say whether it is what the pendant says that it sent."""
        whole = not self._rest and not self._excess and done.next_seq == self.next_seq
        return whole and (done.crc is None or done.crc == self._crc)


def _refused(status: int) -> Stumble:
    words = {
        ACK_NOT_READY: "its storage is not ready",
        ACK_OUT_OF_RANGE: "what was asked for is not there any more",
        ACK_OTHER_RING: "its storage was begun anew",
    }
    return Stumble(words.get(status, f"it refused with status {status}"))
