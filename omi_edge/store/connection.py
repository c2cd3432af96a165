"""Connections to the encrypted file: how one is opened, and what its errors mean.

Only this module opens connections. No error of SQLite or SQLCipher leaves: each becomes one of ours.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import sqlcipher3.dbapi2 as sqlcipher

from omi_edge.errors import BadInput, DiskFull, VaultBusy, VaultDamaged, VaultError
from omi_edge.store import keys

Connection: TypeAlias = Any
"""A connection of sqlcipher3, which has no types of its own."""
Error = sqlcipher.Error
"""What the library raises."""
BUSY_MS = 5000
WAL_LIMIT_BYTES = 16 * 1024 * 1024


class Index(Protocol):
    """What is kept in memory of the file, changed with it."""

    def note(self, document_id: int, bits: bytes | None) -> None:
        """Note a change of the running transaction; None removes."""

    def take_pending(self) -> None:
        """Apply what was noted: it is durable."""

    def forget_pending(self) -> None:
        """Drop what was noted: it was rolled back."""


class _VaultConnection(sqlcipher.Connection):  # type: ignore[misc]
    """A connection that knows the index which its transactions change."""

    index: Index | None = None


def connect(path: Path, key: keys.VaultKey, *, new: bool = False) -> Connection:
    """Open the file at ``path``; ``new`` before its first page is written. Raises what the library raises. Blocks."""
    connection = sqlcipher.connect(
        str(path), isolation_level=None, check_same_thread=False, cached_statements=256,
        factory=_VaultConnection,
    )  # fmt: skip
    try:
        cipher = key.cipher
        for statement in (
            "PRAGMA cipher_log_level = NONE",  # what goes wrong is raised; SQLCipher would print it as well
            f'PRAGMA key = "{key.raw}"',
            f"PRAGMA cipher_page_size = {cipher.page_size}",
            f"PRAGMA cipher_hmac_algorithm = {cipher.hmac_algorithm}",
            f"PRAGMA cipher_kdf_algorithm = {cipher.kdf_algorithm}",
            "PRAGMA cipher_memory_security = OFF",  # measured: the pages it would wipe are wiped by secure_delete
            f"PRAGMA busy_timeout = {BUSY_MS}",
            "PRAGMA temp_store = MEMORY",
            # only before the first page is written; later it would change nothing, but write
            *(("PRAGMA auto_vacuum = INCREMENTAL",) if new else ()),
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "PRAGMA secure_delete = ON",
            "PRAGMA foreign_keys = ON",
            "PRAGMA recursive_triggers = ON",  # else REPLACE would pass by the triggers that keep the audit
            "PRAGMA trusted_schema = OFF",
            f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}",
            *(("PRAGMA fullfsync = ON", "PRAGMA checkpoint_fullfsync = ON") if sys.platform == "darwin" else ()),
        ):
            connection.execute(statement)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def mapped_errors(path: Path | None = None) -> Iterator[None]:
    """Turn the library's errors into ours, by SQLite's result codes; their texts may quote content and are left out."""
    where = f" ({path})" if path is not None else ""
    try:
        yield
    except sqlcipher.Error as error:
        raise ours(error, where) from error
    except (OverflowError, UnicodeEncodeError):  # the error itself quotes the value
        raise BadInput(
            "a value is beyond what the vault can hold: a number of 64 bits, text of whole characters."
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"there is no space left for the vault{where}. Free some space; nothing that was stored is lost."
            ) from error
        raise VaultError(f"the vault's files cannot be used{where}: {error.strerror}.") from error


def ours(error: Exception, where: str) -> VaultError:
    """Return our error for one of the library's."""
    text = str(error)
    code = getattr(error, "sqlite_errorname", "")
    if code.startswith("SQLITE_FULL") or "disk is full" in text or "disk I/O" in text:
        return DiskFull(
            f"there is no space left for the vault{where}. Free some space; nothing that was stored is lost."
        )
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or "is locked" in text:
        return VaultBusy(f"another process holds the vault{where}.")
    if "not a database" in text or "malformed" in text or "encrypted" in text:
        return VaultDamaged(f"the vault does not pass its checks{where}. Put it back from a backup.")
    return VaultError(f"the vault refused a statement{where}: {type(error).__name__}.")


@functools.cache
def library_versions() -> str:
    """Return the versions of SQLite and SQLCipher, for doctor."""
    connection = sqlcipher.connect(":memory:")
    try:
        cipher = connection.execute("PRAGMA cipher_version").fetchone()
        return f"SQLite {sqlcipher.sqlite_version}, SQLCipher {cipher[0] if cipher else 'missing'}"
    finally:
        connection.close()
