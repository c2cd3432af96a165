"""Lines of `status`."""

from __future__ import annotations

import msgspec

from omi_edge.cli.service import wyoming_line
from omi_edge.web import wire


def test_the_wyoming_server_says_to_whom_it_is_open() -> None:
    here = wire.WyomingItem("tcp://127.0.0.1:10300", False, 1, 5, False, "")
    assert wyoming_line(here) == "tcp://127.0.0.1:10300, this machine alone, 1 connected, 5 answered"
    there = msgspec.structs.replace(here, lan=True, announced=True, message="It is so.\x1b")
    line = wyoming_line(there)
    assert "open to everybody on the LAN, announced" in line
    assert line.endswith(": It is so.") or "\x1b" not in line
