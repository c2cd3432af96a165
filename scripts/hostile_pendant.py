"""A virtual pendant that becomes another one at any time, with manners that no real one has: for fuzzing a client."""

from __future__ import annotations

import random
from enum import StrEnum

import msgspec

from omi_edge import gatt
from omi_edge.clock import Clock
from omi_edge.domain import Codec, Ending
from omi_edge.virtual.attributes import Characteristic
from omi_edge.virtual.connection import Connection, Gone
from omi_edge.virtual.faults import Act, Faults, Timed
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import CV1_3_0_21, PROFILES, Profile
from scripts.soak_fuzz import hostile_values

LEGACY = (Codec.PCM16, Codec.PCM8, Codec.MULAW16, Codec.MULAW8)
"""What first DevKits may have sent (dossier §5.1)."""
MTUS = (23, 100, 185, 498)
STEPS = 24
"""A greeting takes no more requests: a connection is ended inside each of them in turn."""
ENDLESS = 6000
"""Notifications sent inside one request: more than a client holds, and more than it takes at once."""


class Kind(StrEnum):
    """What is wrong with a peripheral besides its notifications."""

    NOTHING = "nothing"
    LACKING = "lacking"
    """Services and characteristics are missing, or there twice."""
    MISFIT = "misfit"
    """Characteristics do not allow what they should."""
    GARBAGE = "garbage"
    """Reads answer anything, the codec included: 0 to 600 bytes, another each time."""
    REFUSING = "refusing"
    """Requests are refused with every ATT code there is; so is pairing."""
    ENDING = "ending"
    """The connection ends inside a request."""
    ENDLESS = "endless"
    """Each subscription is answered by thousands of notifications at once."""


class Manners(msgspec.Struct, frozen=True):
    """How a peripheral behaves."""

    kind: Kind
    share: float = 0.5
    """Of the requests or characteristics concerned."""
    ends_at: int = 0
    """The request of each connection that ends it, counted from 1; 0 for none."""


class HostilePendant(Pendant):
    """``become`` makes it another pendant under the same address. ``chance`` decides everything that is random."""

    def __init__(self, clock: Clock, address: str) -> None:
        super().__init__(clock, CV1_3_0_21, address=address)
        self.chance = random.Random(0)
        self.manners = Manners(Kind.NOTHING)
        self._asked = 0

    def become(
        self,
        profile: Profile,
        *,
        manners: Manners | None = None,
        keeps_bonds: bool = True,
        codec: Codec | None = None,
        mtu: int = 498,
        data_length: int = 251,
        first_id: int = 0,
        faults: Faults | None = None,
    ) -> None:
        """End the connection and be another pendant from now on; whoever waits to see this one sees the new one."""
        bonds, waiting, address = self.bonds, self._waiting, self.address
        self.close()
        super().__init__(
            self._clock, profile, mtu=mtu, data_length=data_length, faults=faults, first_id=first_id, codec=codec,
            address=address,
        )  # fmt: skip
        self.bonds = bonds if keeps_bonds else {}
        self.manners = manners or Manners(Kind.NOTHING)
        self._asked = 0
        self.board.services = {
            uuid: kept for uuid, group in self.board.services.items() if (kept := self._bent(group))
        } | self._strange()
        self.board.characteristics = {each.uuid: each for group in self.board.services.values() for each in group}
        self._waiting = waiting
        self._changed()

    def inject(self, uuid: str, value: bytes) -> None:
        """Notify anything, as long as somebody subscribed."""
        self._send(uuid, value)

    def listened(self, uuid: str) -> bool:
        """Say whether somebody subscribed and is heard."""
        return self.reachable and self._connection is not None and self._connection.subscribed(uuid)

    @property
    def link(self) -> Connection | None:
        """The connection that is up."""
        return self._connection

    @property
    def advertising(self) -> bool:
        """See Pendant. While nothing gets through, neither does that."""
        return super().advertising and not self._stalled

    def connect(self, central: str = "") -> Connection:
        """See Pendant."""
        self._asked = 0
        return super().connect(central)

    def refusal(self, connection: Connection, characteristic: Characteristic) -> int | None:
        """Refuse a request, or end the connection inside it."""
        self._asked += 1
        if self._asked == self.manners.ends_at:
            self.chance.choice((self.cut, self.end, self.reboot))()
            raise Gone(connection.ended.result() if not connection.alive else Ending.UNKNOWN)
        if self._is(Kind.REFUSING):
            return self.chance.randrange(1, 0x100)
        return super().refusal(connection, characteristic)

    def accept_pairing(self, connection: Connection) -> int | None:
        """Pair, or not."""
        return None if self._is(Kind.REFUSING) else super().accept_pairing(connection)

    def _is(self, kind: Kind) -> bool:
        return self.manners.kind is kind and self.chance.random() < self.manners.share

    def _bent(self, group: tuple[Characteristic, ...]) -> tuple[Characteristic, ...]:
        if self._is(Kind.LACKING) and self.chance.random() < 0.3:
            return ()
        return tuple(
            self._bent_one(each) for each in group if not (self._is(Kind.LACKING) and self.chance.random() < 0.3)
        )

    def _bent_one(self, each: Characteristic) -> Characteristic:
        properties = " ".join(sorted(each.properties))
        if self._is(Kind.MISFIT):
            properties = self.chance.choice(
                ("read", "write", "notify", "read notify", "write-without-response", "read write")
            )

        def read() -> bytes:
            return garbage(self.chance) if self._is(Kind.GARBAGE) else each.read()

        def subscribed() -> None:
            each.subscribed()
            if self._is(Kind.ENDLESS):
                for value in hostile_values(self.chance, ENDLESS):
                    self.inject(each.uuid, value)

        return Characteristic(
            each.uuid, properties, read=read, write=each.write, subscribed=subscribed, protected=each.protected
        )

    def _strange(self) -> dict[str, tuple[Characteristic, ...]]:
        """A second audio characteristic in a service that nobody knows."""
        if not self._is(Kind.LACKING):
            return {}
        return {"19b1ffff-e8f2-537e-4f6c-d104768a1214": (Characteristic(gatt.AUDIO_DATA, "read notify"),)}


def garbage(chance: random.Random) -> bytes:
    """Return what no characteristic should hold."""
    kind = chance.randrange(6)
    if kind == 0:
        return b""
    if kind == 1:  # a codec, a level, or nothing known
        return bytes([chance.choice((0, 1, 10, 11, 20, 21, 22, 99, 100, 101, 255))])
    if kind == 2:
        return chance.choice(
            (b"3.0.99999", b"-1.0.0", b"3.0.21\0\xff", b"Omi CV 1", b"OMI Glass", "Ⅷ\u202e\x1b[2J".encode())
        )
    return chance.randbytes(chance.choice((1, 2, 3, 4, 5, 8, 16, 64, 512, 513, 600)))


def some_faults(chance: random.Random) -> Faults:
    """Return a few of the faults that pendants have, with a seed of their own."""

    def share(most: float) -> float:
        return chance.choice((0.0, 0.0, chance.uniform(0, most)))

    acts = (Act.CUT, Act.END, Act.AWAY, Act.HELD, Act.STALL, Act.REBOOT, Act.OFF, Act.PRESS)
    timed = tuple(
        Timed(chance.choice(acts), chance.uniform(0, 12), chance.choice((None, 1.0, 3.0)))
        for _ in range(chance.choice((0, 0, 0, 1, 2)))
    )
    return Faults(
        seed=chance.randrange(1 << 32),
        lose=share(0.3),
        lose_every=chance.choice((0, 0, 0, 2, 7)),
        drop=share(0.3),
        duplicate=share(0.3),
        cut_after=(chance.uniform(0, 5),) if chance.random() < 0.1 else (),
        timed=tuple(
            each
            if each.seconds or each.act not in (Act.AWAY, Act.HELD, Act.OFF)
            else msgspec.structs.replace(each, seconds=2.0)
            for each in timed
        ),
        drift_ppm=chance.choice((0.0, 50.0, -200.0, 20_000.0)),
        unset_clock=chance.random() < 0.2,
        security_request=chance.random() < 0.2,
        insufficient_encryption=chance.random() < 0.2,
        encryption_error=chance.choice((0x05, 0x0F)),
        stale_bond=chance.random() < 0.1,
        tap_power_off=chance.random() < 0.1,
    )


def become_hostile(pendant: HostilePendant, chance: random.Random, number: int) -> None:
    """Make of it the hostile pendant of round ``number``."""
    pendant.chance = chance
    kind = chance.choice([Kind.NOTHING] * 3 + list(Kind))
    pendant.become(
        some_profile(chance),
        manners=Manners(kind, chance.choice((0.2, 0.5, 1.0)), number % STEPS + 1 if kind is Kind.ENDING else 0),
        keeps_bonds=chance.random() < 0.8,
        codec=chance.choice((None, None, None, *LEGACY, Codec.OPUS_10MS, Codec.OPUS_20MS)),
        mtu=chance.choice(MTUS),
        data_length=chance.choice((27, 251, 251)),
        first_id=chance.choice((0, 65_530, chance.randrange(0x10000))),
        faults=some_faults(chance),
    )


def become_clean(pendant: HostilePendant, chance: random.Random) -> None:
    """Make of it a pendant as they are sold."""
    profile = some_profile(chance)
    codec = chance.choice(LEGACY) if profile.name == "friend" else None
    # at an MTU of 185 a DevKit's own stack would refuse fragments of 251 bytes (dossier §2.3)
    mtu = 498 if profile.fragments_by_data_length else chance.choice((185, 498))
    pendant.become(profile, codec=codec, mtu=mtu, first_id=chance.choice((0, 65_530)))


def some_profile(chance: random.Random) -> Profile:
    """Return any profile."""
    return chance.choice(list(PROFILES.values()))
