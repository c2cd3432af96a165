"""One process at a time on a data folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from omi_edge.errors import AlreadyRunning, VaultError, VaultMissing
from omi_edge.store.lock import NAME, FolderLock

HOLDER = """
import sys
from pathlib import Path
from omi_edge.store.lock import FolderLock
FolderLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_is_refused_with_a_cure(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    with pytest.raises(AlreadyRunning, match="Stop it, or use another folder"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_acquiring_or_releasing_twice_is_harmless(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.acquire()
    lock.acquire()
    lock.release()
    lock.release()
    again = FolderLock(tmp_path)  # nothing was left behind that still holds it
    again.acquire()
    with pytest.raises(AlreadyRunning):
        lock.acquire()
    again.release()


def test_another_process_holds_it_until_it_dies_however_it_dies(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        lock = FolderLock(tmp_path)
        with pytest.raises(AlreadyRunning):
            lock.acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        lock.acquire()
        lock.release()


def test_a_child_process_does_not_inherit_it(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.acquire()
    program = "print('up', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        lock.release()
        other = FolderLock(tmp_path)
        other.acquire()
        other.release()
        child.communicate(b"\n")


def test_a_missing_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(VaultMissing, match="omi-edge init"):
        FolderLock(tmp_path / "none").acquire()


def test_a_lock_that_cannot_be_opened_is_one_of_our_errors(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(VaultError, match="cannot be used"):
        FolderLock(tmp_path).acquire()


def test_the_lock_file_is_the_owner_s_alone(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    lock.release()
