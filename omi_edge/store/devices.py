"""Pendants that the owner paired: what each said about itself, its battery, and when it was connected.

A device's source and its audio outlive it; only ``forget`` takes the device, its battery and its connections away.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from omi_edge.errors import BadInput, NotFound
from omi_edge.store.connection import Connection

R = TypeVar("R", bound=msgspec.Struct)

_COLUMNS = (
    "address, name, own_name, model, firmware, hardware, manufacturer, codec, features, security, remembered_us,"
    " seen_us, rssi, battery, charging, clock_offset_us, clock_us, connects, next_id"
)
NAME_LENGTH = 100
"""Characters of a name; a pendant that tells more is cut off there."""
LIST_LIMIT = 1000


class DeviceRow(msgspec.Struct, frozen=True):
    """One remembered pendant, as it was last known."""

    address: str
    """Bluetooth address; on macOS the identifier that CoreBluetooth gives."""
    name: str
    """What the owner calls it; no two have the same."""
    own_name: str
    """What it advertises."""
    model: str
    firmware: str
    hardware: str
    manufacturer: str
    codec: int | None
    features: int | None
    """Bits of characteristic 19B10021."""
    security: str | None
    """Of the last connection."""
    remembered_us: int
    seen_us: int | None
    rssi: int | None
    """dBm."""
    battery: int | None
    """Percent."""
    charging: bool | None
    clock_offset_us: int | None
    """Its clock minus ours, measured before it was set; None while unset or unknown."""
    clock_us: int | None
    """When that was measured."""
    connects: int
    """Connections so far."""
    next_id: int | None
    """Id of the audio notification that is due next."""


class BatteryRow(msgspec.Struct, frozen=True):
    """What a battery said."""

    at_us: int
    percent: int
    charging: bool | None


class ConnectionRow(msgspec.Struct, frozen=True):
    """One connection, from its beginning to its end."""

    id: int
    began_us: int
    ended_us: int | None
    """None while it is up."""
    security: str | None
    ending: str | None
    """How it ended (domain.Ending)."""


_NOTED = frozenset(DeviceRow.__struct_fields__) - {"address", "name", "remembered_us", "connects"}
_TEXTS = frozenset({"own_name", "model", "firmware", "hardware", "manufacturer"})


def remember(conn: Connection, *, address: str, name: str, own_name: str, now_us: int) -> DeviceRow:
    """Remember a pendant; one that is remembered already keeps all but what it advertises.

    A name that another one has gets a number, since ``name`` is often what the pendant advertises.
    """
    own_name = _plain(own_name)
    if conn.execute("SELECT 1 FROM devices WHERE address = ?", (address,)).fetchone() is None:
        conn.execute(
            "INSERT INTO devices (address, name, own_name, remembered_us) VALUES (?, ?, ?, ?)",
            (address, _free_name(conn, _plain(name) or address), own_name, now_us),
        )
    else:
        conn.execute("UPDATE devices SET own_name = ? WHERE address = ?", (own_name, address))
    return get(conn, address)


def get(conn: Connection, address: str) -> DeviceRow:
    """Return a device; upper and lower case are the same in an address. Raises NotFound."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM devices WHERE address = ?", (address,)).fetchone()
    if row is None:
        raise _missing()
    return _row(DeviceRow, row)


def list_all(conn: Connection) -> list[DeviceRow]:
    """Return the remembered pendants, in the order in which they were paired."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM devices ORDER BY n LIMIT {LIST_LIMIT}")
    return [_row(DeviceRow, row) for row in rows]


def rename(conn: Connection, address: str, name: str) -> DeviceRow:
    """Call a device otherwise. Raises NotFound, or BadInput for a name that cannot be used or is another's."""
    device_n, name = _number(conn, address), check_name(name)
    if conn.execute("SELECT 1 FROM devices WHERE name = ? AND n <> ?", (name, device_n)).fetchone() is not None:
        raise BadInput("another device has this name; choose one that tells them apart.", "name")
    conn.execute("UPDATE devices SET name = ? WHERE n = ?", (name, device_n))
    return get(conn, address)


def check_name(name: str) -> str:
    """Return a name as it is stored. Raises BadInput for one that cannot be used."""
    name = name.strip()
    if not 1 <= len(name) <= NAME_LENGTH or not name.isprintable():
        raise BadInput(f"a device's name has 1 to {NAME_LENGTH} printable characters.", "name")
    return name


def forget(conn: Connection, address: str) -> None:
    """Forget a device with its battery and connections; its source and audio stay. Raises NotFound."""
    conn.execute("DELETE FROM devices WHERE n = ?", (_number(conn, address),))


def note(conn: Connection, address: str, **fields: Any) -> None:
    """Set what was learned of a device, each field by its column; harmless for one that is not remembered.

    What a pendant tells in words is cut to one printable line.
    """
    unknown = fields.keys() - _NOTED
    if unknown:
        raise ValueError(f"a device has no {', '.join(sorted(unknown))} to be noted")
    if not fields:
        return
    names = sorted(fields)
    values = [_plain(fields[name]) if name in _TEXTS else fields[name] for name in names]
    columns = ", ".join(f"{name} = ?" for name in names)
    conn.execute(f"UPDATE devices SET {columns} WHERE address = ?", (*values, address))


def add_battery(conn: Connection, address: str, *, at_us: int, percent: int, charging: bool | None) -> None:
    """Note what the battery says now, and keep it in the history. Raises NotFound."""
    device_n = _number(conn, address)
    conn.execute("UPDATE devices SET battery = ?, charging = ? WHERE n = ?", (percent, charging, device_n))
    conn.execute(
        "INSERT INTO device_battery (device_n, at_us, percent, charging) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (device_n, at_us) DO UPDATE SET percent = excluded.percent, charging = excluded.charging",
        (device_n, at_us, percent, charging),
    )


def battery(conn: Connection, address: str, *, since_us: int, limit: int = 1000) -> list[BatteryRow]:
    """Return the newest levels since a time, in order of time. Raises NotFound."""
    rows = conn.execute(
        "SELECT at_us, percent, charging FROM device_battery WHERE device_n = ? AND at_us >= ?"
        " ORDER BY at_us DESC LIMIT ?",
        (_number(conn, address), since_us, limit),
    ).fetchall()
    return [_row(BatteryRow, row) for row in reversed(rows)]


def began(conn: Connection, address: str, *, at_us: int, security: str | None) -> int:
    """Note that a connection is up, and count it; return its id. Raises NotFound."""
    device_n = _number(conn, address)
    conn.execute(
        "UPDATE devices SET connects = connects + 1, security = ?, seen_us = ? WHERE n = ?",
        (security, at_us, device_n),
    )
    cursor = conn.execute(
        "INSERT INTO device_connections (device_n, began_us, security) VALUES (?, ?, ?)", (device_n, at_us, security)
    )
    return int(cursor.lastrowid)


def ended(conn: Connection, connection_id: int, *, at_us: int, ending: str) -> None:
    """Note how a connection ended; harmless for one that is over, or of a forgotten device."""
    conn.execute(
        "UPDATE device_connections SET ended_us = max(began_us, ?), ending = ? WHERE n = ? AND ended_us IS NULL",
        (at_us, ending, connection_id),
    )


def connections(conn: Connection, address: str, limit: int) -> list[ConnectionRow]:
    """Return the last connections of a device, newest first. Raises NotFound."""
    rows = conn.execute(
        "SELECT n, began_us, ended_us, security, ending FROM device_connections WHERE device_n = ?"
        " ORDER BY n DESC LIMIT ?",
        (_number(conn, address), limit),
    )
    return [_row(ConnectionRow, row) for row in rows]


def close_open(conn: Connection, at_us: int) -> None:
    """End the connections that a crash left open: nobody knows how, so they last until the device was last known.

    That is when it was seen or its audio was stored, never later than ``at_us``.
    """
    conn.execute(
        "UPDATE device_connections SET ending = 'unknown', ended_us = max(began_us, min(?, max("
        "(SELECT coalesce(d.seen_us, 0) FROM devices d WHERE d.n = device_n),"
        " coalesce((SELECT max(o.heard_until_us) FROM devices d JOIN sources o ON o.device_id = d.address"
        " WHERE d.n = device_n), 0)))) WHERE ended_us IS NULL AND device_n IN (SELECT n FROM devices)",
        (at_us,),
    )


def _number(conn: Connection, address: str) -> int:
    row = conn.execute("SELECT n FROM devices WHERE address = ?", (address,)).fetchone()
    if row is None:
        raise _missing()
    return int(row[0])


def _missing() -> NotFound:
    return NotFound("there is no such device; `omi-edge devices list` shows those that are remembered.")


def _free_name(conn: Connection, name: str) -> str:
    """Return ``name``, with the first number behind it that makes it unlike all others."""
    tried, number = name, 1
    while conn.execute("SELECT 1 FROM devices WHERE name = ?", (tried,)).fetchone() is not None:
        number += 1
        tried = f"{name} {number}"
    return tried


def _plain(text: str) -> str:
    """Return text from outside as one short printable line."""
    return "".join(character for character in text if character.isprintable()).strip()[:NAME_LENGTH]


def _row(kind: type[R], row: tuple[object, ...]) -> R:
    return msgspec.convert(dict(zip(kind.__struct_fields__, row, strict=True)), kind, strict=False)
