"""The announcement on the LAN, heard by the same library over the loopback interface."""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import sys
from typing import Any

import pytest
from zeroconf import IPVersion, NonUniqueNameException, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from omi_edge.pipeline import announce
from omi_edge.pipeline.announce import SERVICE, Announcement, own_addresses

HERE = ipaddress.ip_address("127.0.0.1")


async def until_settled(announcement: Announcement) -> None:
    assert announcement._task is not None
    await asyncio.wait([announcement._task])


async def test_it_is_found_and_says_nothing_of_anybody() -> None:
    announcement = Announcement("omi-edge")
    announcement.start(HERE, 10_300)
    await until_settled(announcement)
    assert (announcement.announced, announcement.message) == (True, "")
    ears = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    try:
        info = await ears.async_get_service_info(SERVICE, f"omi-edge.{SERVICE}", timeout=5000)
        assert info is not None
        assert (info.port, info.parsed_addresses(), info.properties) == (10_300, ["127.0.0.1"], {})
        assert info.server is not None
        assert info.server.startswith("omi-edge-")
        came, gone = asyncio.Event(), asyncio.Event()

        def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: Any) -> None:
            {"Added": came, "Removed": gone}[state_change.name].set()

        browser = AsyncServiceBrowser(ears.zeroconf, SERVICE, handlers=[changed])
        async with asyncio.timeout(10):
            await came.wait()
        await announcement.stop()
        await announcement.stop()
        async with asyncio.timeout(10):
            await gone.wait()
        await browser.async_cancel()
    finally:
        await ears.async_close()
    assert not announcement.announced


async def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    announcement = Announcement("omi-edge")
    announcement.start(HERE, 1)
    await until_settled(announcement)
    assert 'the extra "wyoming"' in announcement.message
    await announcement.stop()


async def test_without_a_lan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "own_addresses", lambda _: [])
    announcement = Announcement("omi-edge")
    announcement.start(ipaddress.ip_address("0.0.0.0"), 1)
    await until_settled(announcement)
    assert "no address on a LAN" in announcement.message
    await announcement.stop()


@pytest.mark.parametrize("error", [OSError("no network"), NonUniqueNameException()])
async def test_what_goes_wrong_is_said(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("zeroconf.asyncio"), "AsyncZeroconf", refuse)
    announcement = Announcement("omi-edge")
    announcement.start(HERE, 1)
    await until_settled(announcement)
    assert f"not announced ({type(error).__name__})" in announcement.message
    assert not announcement.announced
    await announcement.stop()


def test_addresses_of_the_lan_alone() -> None:
    found = ["127.0.0.1", "192.168.1.5", "8.8.8.8", "10.1.2.3", "fe80::1", "nonsense", "100.64.0.1"]
    assert [str(one) for one in own_addresses(found)] == ["192.168.1.5", "10.1.2.3"]
