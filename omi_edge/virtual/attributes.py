"""What a GATT server is made of, and how it refuses."""

from __future__ import annotations

from collections.abc import Callable

READ_NOT_PERMITTED = 0x02
WRITE_NOT_PERMITTED = 0x03
INSUFFICIENT_AUTHENTICATION = 0x05
REQUEST_NOT_SUPPORTED = 0x06
INVALID_LENGTH = 0x0D
UNLIKELY = 0x0E
INSUFFICIENT_ENCRYPTION = 0x0F
"""ATT error codes (Bluetooth Core specification, Vol 3, Part F, §3.4.1.1)."""

NEEDS_SECURITY = frozenset({INSUFFICIENT_AUTHENTICATION, INSUFFICIENT_ENCRYPTION})
"""What a pendant says to a link that should be encrypted and is not."""


class AttError(Exception):
    """The pendant refuses a request with an ATT error ``code``."""

    def __init__(self, code: int) -> None:
        super().__init__(f"ATT error 0x{code:02x}")
        self.code = code


class Characteristic:
    """One characteristic of one pendant. ``protected`` ones need encryption where a pendant insists on it."""

    def __init__(
        self,
        uuid: str,
        properties: str,
        *,
        read: Callable[[], bytes] = bytes,
        write: Callable[[bytes], None] = lambda _: None,
        subscribed: Callable[[], None] = lambda: None,
        protected: bool = True,
    ) -> None:
        self.uuid = uuid
        self.properties = frozenset(properties.split())
        """Of read, write, write-without-response, notify: the names that BlueZ uses for its flags."""
        self.protected = protected
        self.subscribed = subscribed
        """Called when a central has subscribed."""
        self._read = read
        self._write = write

    def read(self) -> bytes:
        """Return the value. Raises AttError."""
        if "read" not in self.properties:
            raise AttError(READ_NOT_PERMITTED)
        return self._read()

    def write(self, value: bytes) -> None:
        """Take a value. Raises AttError."""
        if not self.properties & {"write", "write-without-response"}:
            raise AttError(WRITE_NOT_PERMITTED)
        self._write(value)
