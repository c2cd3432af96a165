"""The one encrypted file: who may open it, which thread writes, what a transaction is.

One thread owns the connection that writes; short readers live in two threads beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from omi_edge.clock import Clock, held
from omi_edge.errors import (
    BadInput,
    NotReady,
    VaultDamaged,
    VaultExists,
    VaultMissing,
)
from omi_edge.store import keys, migrations
from omi_edge.store.connection import Connection, Error, Index, connect, mapped_errors, ours

Progress: TypeAlias = Callable[[str, float], None]
T = TypeVar("T")


NAME = "vault.db"
APPLICATION_ID = 0x6F6D6965  # "omie"
READERS = 2


class Database:
    """An open vault. Work is a function of a connection: ``await db.read(work)``, ``await db.write(work)``."""

    def __init__(self, path: Path, key: keys.VaultKey, clock: Clock, writer: Connection) -> None:
        self.path = path
        self._key = key
        self._clock = clock
        self._writer = writer
        self._work: queue.SimpleQueue[tuple[Callable[[Connection], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="writer", daemon=True)
        self._thread.start()
        self._reader = threading.local()
        self._reading: list[Connection] = []
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._closed = False

    @staticmethod
    def create(folder: Path, passphrase: str, clock: Clock) -> None:
        """Make a vault in ``folder``. Raises BadInput, VaultExists, DiskFull or VaultError. Blocks."""
        if not passphrase:
            raise BadInput("the passphrase must not be empty.")
        path = folder / NAME
        new = folder / (NAME + ".new")
        with mapped_errors(path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists():
                raise VaultExists(f"there is a vault in {folder} already. Use another folder, or that vault.")
            if not new.exists() and any((folder / name).exists() for name in (keys.NAME, keys.SECOND_NAME)):
                # new ones in their place would lock the owner out of a vault that comes back from a backup
                raise VaultExists(
                    f"there are key slots in {folder}, but their {NAME} is gone. Put it back from a backup, "
                    "or use another folder."
                )
            folder.chmod(0o700)
            # the file appears under its name only when it is complete, and an unfinished one is there before its
            # key slots: a creation that was killed can be repeated
            for left_over in (Path(f"{new}-wal"), Path(f"{new}-shm")):
                left_over.unlink(missing_ok=True)
            os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            keys.sync_folder(folder)
            key = keys.create(folder, passphrase)
            connection = connect(new, key, new=True)
            try:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                migrations.migrate(connection)
                connection.execute(
                    "INSERT OR REPLACE INTO settings (key, value) VALUES ('created_us', ?)", (str(clock.utc_us()),)
                )
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()
            new.replace(path)
            keys.sync_folder(folder)

    @classmethod
    def open(cls, folder: Path, passphrase: str, clock: Clock, *, progress: Progress | None = None) -> Database:
        """Open the vault in ``folder``. Blocks.

        Raises VaultMissing, PassphraseError (nothing is touched), VaultDamaged or VaultNewer. ``progress`` is told
        what takes long, and how far it is from 0 to 1; it is called in the calling thread.
        """
        path = folder / NAME
        opened: list[Connection] = []

        def fits(key: keys.VaultKey) -> bool:
            if not path.is_file():
                raise VaultDamaged(
                    f"{path} is gone although its key slots are there. Put it back from a backup; no new one is made."
                )
            if path.stat().st_size < key.cipher.page_size:  # SQLite would make a new database of it
                raise VaultDamaged(f"{path} is cut off. Put it back from a backup; no new one is made.")
            try:
                opened.append(connect(path, key))
            except Error as error:
                if isinstance(ours(error, ""), VaultDamaged):
                    return False
                raise
            return True

        with mapped_errors(path):
            try:
                key = keys.unlock(folder, passphrase, fits)
            except VaultMissing as error:
                if not path.exists():
                    raise
                raise VaultDamaged(
                    f"the key slots of the vault in {folder} are gone. Put {keys.NAME} back from a backup; "
                    "without it the vault cannot be opened."
                ) from error
            (connection,) = opened
            try:
                if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                    raise VaultDamaged(f"{path} is not a vault of omi-edge.")
                migrations.migrate(connection, progress)
            except BaseException:
                connection.close()
                raise
        return cls(path, key, clock, connection)

    @property
    def index(self) -> Index | None:
        """Vectors in memory, kept current after each commit."""
        index: Index | None = self._writer.index
        return index

    @index.setter
    def index(self, index: Index) -> None:
        self._writer.index = index

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on a connection that cannot write; it sees one consistent state."""
        if self._closed:
            raise NotReady("the vault is closed.")
        with held(self._clock):
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` as one transaction in the writer thread; on any error nothing of it stays.

        Durable when this returns. A waiter that is cancelled leaves the transaction to its end. Raises DiskFull when
        there is no space.
        """
        if self._closed:
            raise NotReady("the vault is closed.")
        future: Future[T] = Future()
        with held(self._clock):
            self._work.put((work, future))
            return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """Finish what waits, put everything into the main file, close; harmless twice."""
        if self._closed:
            return
        self._closed = True
        self._work.put(None)
        with held(self._clock):
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._thread.join()
        self._readers.shutdown(wait=True)
        for connection in self._reading:
            connection.close()
        with contextlib.suppress(Error):  # the log is replayed at the next start
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._writer.close()

    def _read(self, work: Callable[[Connection], T]) -> T:
        connection = getattr(self._reader, "connection", None)
        with mapped_errors(self.path):
            if connection is None:
                connection = connect(self.path, self._key)
                connection.execute("PRAGMA query_only = ON")
                self._reader.connection = connection
                self._reading.append(connection)
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("ROLLBACK")

    def _write_all(self) -> None:
        while (item := self._work.get()) is not None:
            work, future = item
            try:
                result = self._transact(work)
            except BaseException as error:  # noqa: BLE001 it belongs to whoever waits, whatever it is
                if not future.cancelled():
                    _settle(future, error=error)
            else:
                _settle(future, result=result)

    def _transact(self, work: Callable[[Connection], T]) -> T:
        with mapped_errors(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._writer)
                self._writer.execute("COMMIT")
            except BaseException:
                if self.index is not None:
                    self.index.forget_pending()
                with contextlib.suppress(Error):  # SQLite may have rolled back by itself
                    self._writer.execute("ROLLBACK")
                raise
        if self.index is not None:
            self.index.take_pending()
        return result


def _settle(future: Future[Any], *, result: Any = None, error: BaseException | None = None) -> None:
    if future.set_running_or_notify_cancel():
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
