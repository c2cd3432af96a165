"""Bytes of the storage protocols: the vectors of dossier §10.1, and any bytes at all."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from omi_edge.capture import multi, ringwire, single
from omi_edge.capture.ringwire import Ack, Begin, Data, Done, Info, answer_of

INFO = bytes.fromhex("02 00000000000004D2 000000000000162E 000FF208 0000000000000000 01BC")
CUSTODY = INFO + bytes.fromhex("0F 01 0123456789ABCDEF")


def test_vectors_of_the_ring() -> None:
    assert ringwire.INFO.hex() == "10"
    assert answer_of(INFO) == Info(1234, 5678, 1_045_000, 0, 444)
    assert ringwire.read(1234, 512) == bytes.fromhex("11 00000000000004D2 00000200")
    assert answer_of(bytes.fromhex("05 00000000000004D2 00000200")) == Begin(1234, 512)
    assert answer_of(bytes.fromhex("04 00 00000000000006D2")) == Done(0, 1746)
    crc = answer_of(bytes.fromhex("04 00 0102030405060708 CBF43926"))
    assert crc == Done(0, 0x0102030405060708, zlib.crc32(b"123456789"))
    assert ringwire.advance(1746) == bytes.fromhex("12 00000000000006D2")
    assert [answer_of(bytes.fromhex(value)) for value in ("0100", "010A", "0109")] == [Ack(0), Ack(10), Ack(9)]
    assert answer_of(b"\x03abc") == Data(b"abc")


def test_vectors_of_the_files() -> None:
    assert single.read(880) == bytes.fromhex("00 01 00000370")
    assert multi.files_of(bytes.fromhex("01 6B003640 00000528")) == (multi.File(1_795_176_000, 1320),)
    assert multi.read(2, 880) == bytes.fromhex("11 02 00000370")


def test_the_custody_draft() -> None:
    assert answer_of(CUSTODY) == Info(1234, 5678, 1_045_000, 0, 444, 0x0F, 0x0123456789ABCDEF)
    assert ringwire.enable(0x0D) == bytes.fromhex("14 01 0D")
    assert answer_of(bytes.fromhex("01 00 0D")) == Ack(0, 0x0D)
    assert ringwire.advance(2, 1) == bytes.fromhex("15 0000000000000001 0000000000000002")
    assert answer_of(INFO + bytes.fromhex("0F 02 0123456789ABCDEF")) == answer_of(INFO)  # another contract
    without = answer_of(INFO + bytes.fromhex("07 01 0123456789ABCDEF"))
    nobody = answer_of(INFO + bytes.fromhex("0F 01 0000000000000000"))
    assert isinstance(without, Info) and isinstance(nobody, Info) and without.ring_id is nobody.ring_id is None


def test_lengths_are_minimums() -> None:
    """Trap 16."""
    assert answer_of(INFO + b"x") == answer_of(INFO)
    assert answer_of(CUSTODY + b"x") == answer_of(CUSTODY)
    assert answer_of(bytes.fromhex("0400000000000000 06D2 0102")) == Done(0, 1746)
    assert single.status_of(bytes.fromhex("28050000 00000000")) == single.Status(1320)
    assert single.status_of(bytes.fromhex("28050000 00000000 4036006B 01")) == single.Status(1320, 1_795_176_000)
    for value in (INFO, CUSTODY[:31], b"\x05" + bytes(12), b"\x04" + bytes(9), b"\x01\x00", b"\x03a"):
        assert answer_of(value) is not None and answer_of(value[:-1]) is None
    assert answer_of(bytes.fromhex("06 00000000 01")) is answer_of(b"") is None


def test_lists_of_files() -> None:
    assert multi.files_of(b"\0") == ()
    assert multi.files_of(b"\xff") is multi.files_of(b"\x64") is multi.files_of(b"") is None
    whole = bytes(range(1, 25))
    assert multi.files_of(b"\x05" + whole) == multi.files_of(b"\x03" + whole)  # more than one notification holds
    assert multi.payload(b"\0\0\0\x07abc", 7) == b"abc"
    assert multi.payload(b"\0\0\0\x08abc", 7) is None
    assert multi.payload(b"\x64", 7) == single.payload(b"\x64") == 100


@given(st.binary(max_size=600))
def test_no_bytes_raise(value: bytes) -> None:
    answer_of(value)
    single.status_of(value)
    single.payload(value)
    multi.payload(value, 7)
    files = multi.files_of(value)
    assert files is None or len(files) <= 74
