"""Wyoming, the protocol of Home Assistant's voice services: its events, read within bounds, and where a peer may be.

An event is a line of JSON with the bytes of data (JSON) and payload (samples) behind it (README of rhasspy/wyoming).
The package of that name reads whatever lengths a peer names, and takes any JSON value for an event; so a stranger on
the LAN could fill the memory. What reads strangers here is written for that.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from omi_edge.errors import BadInput, ConfigError

DEFAULT_PORT = 10300
"""Of speech recognition, as rhasspy/wyoming-faster-whisper and Home Assistant have it."""
LINE_BYTES = 1 << 16
"""Longest first line of an event. asyncio's own limit, which the package has as well."""
PAYLOAD_BYTES = 1 << 20
"""Longest payload: 32 s of 16-bit samples at 16 kHz. Home Assistant sends some thousand bytes."""
NEAR = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "::1/128", "fc00::/7",
        "fe80::/10",
    )
)  # fmt: skip
"""Loopback, private and link-local addresses: RFC 1122 §3.2.1.3, RFC 1918, RFC 3927, RFC 4291, RFC 4193."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Length = Annotated[int, Meta(ge=0)]
Milliseconds = Annotated[float, Meta(ge=0, le=86_400_000)]
T = TypeVar("T")


class Event(msgspec.Struct, frozen=True):
    """One event: what it is, its fields, its bytes."""

    type: str
    data: dict[str, Any] = {}
    payload: bytes = b""


class AudioShape(msgspec.Struct, frozen=True):
    """Fields of ``audio-start`` and ``audio-chunk``."""

    rate: int
    """Samples per second."""
    width: int
    """Bytes of a sample of one channel."""
    channels: int


class Voice(msgspec.Struct, frozen=True):
    """Fields of ``voice-started`` and ``voice-stopped``."""

    timestamp: Milliseconds | None = None
    """Since the audio began."""


class Place(msgspec.Struct, frozen=True):
    """Where a server is: an address of the LAN with a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""


class _Head(msgspec.Struct, frozen=True):
    type: str
    data: dict[str, Any] | None = None
    data_length: Length | None = None
    payload_length: Length | None = None


_HEAD = msgspec.json.Decoder(_Head)
_DATA = msgspec.json.Decoder(dict[str, Any])


async def read_event(
    reader: asyncio.StreamReader, *, data_limit: int = LINE_BYTES, payload_limit: int = PAYLOAD_BYTES
) -> Event | None:
    """Return the next event, None when the peer has closed between two.

    ``reader`` must have a limit of LINE_BYTES. Raises BadInput for what is no event, for one that is larger than the
    limits (in bytes), and when the peer closes in the middle of one.
    """
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise BadInput("the connection ended in the middle of an event.") from None
    except asyncio.LimitOverrunError:
        raise BadInput(f"the first line of an event must not have more than {LINE_BYTES} bytes.") from None
    head = _decoded(_HEAD, line)
    data = head.data or {}
    if head.data_length:
        data = data | _decoded(_DATA, await _exactly(reader, head.data_length, data_limit, "data"))
    payload = b""
    if head.payload_length:
        payload = await _exactly(reader, head.payload_length, payload_limit, "samples")
    return Event(head.type, data, payload)


def encode_event(event: Event) -> bytes:
    """Return the event as it is sent."""
    data = msgspec.json.encode(event.data) if event.data else b""
    head: dict[str, str | int] = {"type": event.type}
    if data:
        head["data_length"] = len(data)
    if event.payload:
        head["payload_length"] = len(event.payload)
    return msgspec.json.encode(head) + b"\n" + data + event.payload


def fields(event: Event, kind: type[T]) -> T:
    """Return the fields of an event. Raises BadInput when they are not what they should be."""
    try:
        return msgspec.convert(event.data, kind)
    except msgspec.ValidationError:
        raise BadInput(f"the event {event.type[:40]!r} lacks a field, or has a wrong one.") from None


def place_of(uri: str) -> Place:
    """Return the server that ``wyoming.uri`` names. Raises ConfigError unless it is on the LAN or on this machine.

    Names are not taken, ``localhost`` excepted: asking for one would send it to a name server.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise ConfigError(_FORM) from None
    if parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(_FORM)
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return Place(path=unquote(parts.path))
    if parts.scheme != "tcp" or not parts.hostname or parts.path not in ("", "/"):
        raise ConfigError(_FORM)
    address = address_of(unquote(parts.hostname))
    if address is None:
        raise ConfigError(
            "wyoming.uri must name the server by its address, like tcp://192.168.1.20:10300: looking up a name would "
            "send it to a name server."
        )
    if not is_near(address):
        raise ConfigError(
            f"wyoming.uri: {address} is not on your LAN. What is said must not leave it: give an address that is "
            "private (10., 172.16. to 172.31., 192.168., fc00::/7), link-local or this machine's own."
        )
    return Place(str(address), DEFAULT_PORT if port is None else port)


def address_of(host: str) -> IpAddress | None:
    """Return the address that ``host`` writes, None when it is a name; ``localhost`` is 127.0.0.1."""
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return None


def is_near(address: IpAddress) -> bool:
    """Say whether an address is private, link-local or loopback."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    found = mapped or address
    if isinstance(found, ipaddress.IPv6Address) and found.scope_id:  # a zone says through which interface
        found = ipaddress.IPv6Address(int(found))
    return any(found.version == network.version and found in network for network in NEAR)


_FORM = "wyoming.uri must be an address like tcp://192.168.1.20:10300 or unix:///run/wyoming.sock."


def _decoded(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadInput("what came is no event of the Wyoming protocol.") from None


async def _exactly(reader: asyncio.StreamReader, length: int, limit: int, what: str) -> bytes:
    if length > limit:
        raise BadInput(f"the {what} of an event must not have more than {limit} bytes.")
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        raise BadInput("the connection ended in the middle of an event.") from None
