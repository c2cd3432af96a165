"""Remembered pendants: named, noted, counted, forgotten."""

from __future__ import annotations

import pytest

from omi_edge.domain import Codec, Ending, Security
from omi_edge.errors import BadInput, NotFound
from omi_edge.store import devices, sources
from omi_edge.store.connection import Connection
from omi_edge.store.devices import DeviceRow
from tests.helpers import START_US
from tests.store.filling import MINUTE, SECOND, SOURCES, add_source

ADDRESS, OTHER = "C0:FF:EE:00:00:01", "C0:FF:EE:00:00:02"


def remembered(conn: Connection, address: str = ADDRESS, name: str = "grey", own_name: str = "Omi") -> DeviceRow:
    return devices.remember(conn, address=address, name=name, own_name=own_name, now_us=START_US)


def test_an_address_is_remembered_once_whatever_its_case(conn: Connection) -> None:
    first = remembered(conn)
    devices.note(conn, ADDRESS, battery=80, model="Omi CV 1")
    again = devices.remember(conn, address=ADDRESS.lower(), name="other", own_name="Omi 2", now_us=START_US + SECOND)
    assert (again.address, again.name, again.own_name) == (ADDRESS, "grey", "Omi 2")
    assert (again.remembered_us, again.battery, again.model) == (START_US, 80, "Omi CV 1")
    assert devices.get(conn, ADDRESS.lower()) == again
    assert devices.list_all(conn) == [again]
    assert first.seen_us is first.battery is first.charging is first.clock_offset_us is first.next_id is None


def test_two_pendants_never_share_a_name(conn: Connection) -> None:
    names = [remembered(conn, f"C0:FF:EE:00:00:0{n}", "Omi").name for n in range(3)]
    assert names == ["Omi", "Omi 2", "Omi 3"]
    with pytest.raises(BadInput, match="another device") as refused:
        devices.rename(conn, "C0:FF:EE:00:00:01", "OMI")
    assert refused.value.field == "name"
    assert devices.rename(conn, "c0:ff:ee:00:00:00", " OMI ").name == "OMI"  # its own name in another case


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "a\nb", "\x1b[31m"])
def test_a_name_that_cannot_be_shown_is_refused(conn: Connection, name: str) -> None:
    remembered(conn)
    with pytest.raises(BadInput):
        devices.rename(conn, ADDRESS, name)


def test_what_a_pendant_says_of_itself_is_one_short_line(conn: Connection) -> None:
    row = remembered(conn, name="", own_name="\x1b[31mOmi\n\0" + "x" * 500)
    assert row.own_name.startswith("[31mOmix")
    assert len(row.own_name) == devices.NAME_LENGTH
    assert row.name == ADDRESS  # nothing else to call it
    devices.note(conn, ADDRESS, firmware="3.0\t.21\u2028")
    assert devices.get(conn, ADDRESS).firmware == "3.0.21"


def test_what_was_learned_is_noted_and_nothing_else(conn: Connection) -> None:
    before = remembered(conn)
    devices.note(conn, ADDRESS)
    assert devices.get(conn, ADDRESS) == before
    devices.note(
        conn, ADDRESS.lower(), seen_us=START_US, rssi=-71, codec=Codec.OPUS_20MS, features=0x1EC,
        security=Security.OPEN, charging=True, clock_offset_us=-2 * SECOND, clock_us=START_US, next_id=65_535,
        hardware="5.0", manufacturer="Based Hardware",
    )  # fmt: skip
    row = devices.get(conn, ADDRESS)
    assert (row.seen_us, row.rssi, row.codec, row.features, row.security) == (START_US, -71, 21, 0x1EC, "open")
    assert (row.charging, row.clock_offset_us, row.clock_us, row.next_id) == (True, -2 * SECOND, START_US, 65_535)
    assert (row.name, row.model, row.hardware) == ("grey", "", "5.0")
    devices.note(conn, ADDRESS, clock_offset_us=None)
    assert devices.get(conn, ADDRESS).clock_offset_us is None
    devices.note(conn, OTHER, rssi=-1)  # forgotten meanwhile: harmless
    for wrong in ("name", "n", "connects", "batery"):
        with pytest.raises(ValueError, match=wrong):
            devices.note(conn, ADDRESS, **{wrong: 1})


def test_the_battery_has_a_history(conn: Connection) -> None:
    remembered(conn)
    remembered(conn, OTHER)
    for n, (percent, charging) in enumerate([(80, None), (79, False), (79, True)]):
        devices.add_battery(conn, ADDRESS, at_us=START_US + n * MINUTE, percent=percent, charging=charging)
    devices.add_battery(conn, ADDRESS, at_us=START_US, percent=81, charging=False)  # the same moment again
    devices.add_battery(conn, OTHER, at_us=START_US, percent=1, charging=None)
    history = devices.battery(conn, ADDRESS.lower(), since_us=0)
    assert [(row.at_us - START_US, row.percent, row.charging) for row in history] == [
        (0, 81, False),
        (MINUTE, 79, False),
        (2 * MINUTE, 79, True),
    ]
    assert devices.battery(conn, ADDRESS, since_us=START_US + MINUTE) == history[1:]
    assert devices.battery(conn, ADDRESS, since_us=0, limit=2) == history[1:]  # the newest, in order of time
    assert (devices.get(conn, ADDRESS).battery, devices.get(conn, OTHER).battery) == (81, 1)
    assert devices.battery(conn, OTHER, since_us=0)[0].charging is None


def test_connections_are_counted_and_told_newest_first(conn: Connection) -> None:
    remembered(conn)
    first = devices.began(conn, ADDRESS, at_us=START_US, security=Security.BONDED)
    devices.ended(conn, first, at_us=START_US + SECOND, ending=Ending.TIMEOUT)
    devices.ended(conn, first, at_us=START_US + MINUTE, ending=Ending.LOCAL)  # it is over already
    second = devices.began(conn, ADDRESS, at_us=START_US + MINUTE, security=None)
    up, over = devices.connections(conn, ADDRESS, 5)
    assert (over.id, over.ended_us, over.security, over.ending) == (first, START_US + SECOND, "bonded", "timeout")
    assert (up.id, up.began_us, up.ended_us, up.security, up.ending) == (second, START_US + MINUTE, None, None, None)
    assert devices.connections(conn, ADDRESS, 1) == [up]
    row = devices.get(conn, ADDRESS)
    assert (row.connects, row.security, row.seen_us) == (2, None, START_US + MINUTE)
    devices.ended(conn, second, at_us=START_US, ending=Ending.REMOTE)  # the clock was set back
    assert devices.connections(conn, ADDRESS, 1)[0].ended_us == START_US + MINUTE


def test_what_a_crash_left_open_lasts_until_the_device_was_last_known(conn: Connection) -> None:
    for address in (ADDRESS, OTHER):
        remembered(conn, address)
    silent = devices.began(conn, OTHER, at_us=START_US, security=None)
    devices.began(conn, ADDRESS, at_us=START_US, security=None)
    add_source(conn, SOURCES[0], device_id=ADDRESS)
    sources.advance(conn, SOURCES[0], heard_until_us=START_US + MINUTE)
    devices.note(conn, ADDRESS, seen_us=START_US + SECOND)
    devices.close_open(conn, START_US + 10 * MINUTE)
    (heard,), (unheard,) = devices.connections(conn, ADDRESS, 5), devices.connections(conn, OTHER, 5)
    assert (heard.ended_us, heard.ending) == (START_US + MINUTE, "unknown")
    assert (unheard.id, unheard.ended_us, unheard.ending) == (silent, START_US, "unknown")
    devices.close_open(conn, START_US + 20 * MINUTE)  # nothing is open any more
    assert devices.connections(conn, ADDRESS, 5) == [heard]
    devices.began(conn, ADDRESS, at_us=START_US, security=None)
    devices.close_open(conn, START_US + SECOND // 2)  # the clock was set back: never later than now
    assert devices.connections(conn, ADDRESS, 1)[0].ended_us == START_US + SECOND // 2


def test_a_forgotten_device_leaves_its_source_alone(conn: Connection) -> None:
    for address in (ADDRESS, OTHER):
        remembered(conn, address)
        devices.add_battery(conn, address, at_us=START_US, percent=50, charging=None)
    gone = devices.began(conn, ADDRESS, at_us=START_US, security=None)
    kept = devices.began(conn, OTHER, at_us=START_US, security=None)
    add_source(conn, SOURCES[0], device_id=ADDRESS)
    devices.forget(conn, ADDRESS.lower())
    assert sources.for_device(conn, ADDRESS) is not None
    assert [row.address for row in devices.list_all(conn)] == [OTHER]
    assert conn.execute("SELECT count(*) FROM device_battery").fetchone()[0] == 1
    assert [row.id for row in devices.connections(conn, OTHER, 5)] == [kept]
    devices.ended(conn, gone, at_us=START_US, ending=Ending.LOCAL)
    new = remembered(conn, name="grey")
    assert (new.connects, devices.connections(conn, ADDRESS, 5)) == (0, [])


def test_an_unknown_device_is_named_as_such(conn: Connection) -> None:
    for act in (
        lambda: devices.get(conn, ADDRESS),
        lambda: devices.forget(conn, ADDRESS),
        lambda: devices.rename(conn, ADDRESS, "x"),
        lambda: devices.battery(conn, ADDRESS, since_us=0),
        lambda: devices.add_battery(conn, ADDRESS, at_us=0, percent=1, charging=None),
        lambda: devices.began(conn, ADDRESS, at_us=0, security=None),
        lambda: devices.connections(conn, ADDRESS, 1),
    ):
        with pytest.raises(NotFound):
            act()
