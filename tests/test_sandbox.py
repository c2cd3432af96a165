"""The network filter, and the end of a child whose parent ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap

import pytest

from omi_edge.sandbox import network_refused

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the filter")


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@linux_only
def test_children_of_a_filtered_process_are_filtered_too() -> None:
    told = python(
        """
        import subprocess, sys
        from omi_edge.sandbox import refuse_network
        assert refuse_network()
        code = "import socket\\ntry:\\n socket.socket()\\n print('made')\\nexcept PermissionError:\\n print('refused')"
        print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        """
    )
    assert told == "refused"


@linux_only
def test_pipes_files_and_threads_go_on() -> None:
    told = python(
        """
        import os, socket, tempfile, threading
        from omi_edge.sandbox import refuse_network
        assert refuse_network()
        one, other = socket.socketpair()
        thread = threading.Thread(target=lambda: one.sendall(b"ok"))
        thread.start(); thread.join()
        with tempfile.TemporaryFile() as stream:
            stream.write(other.recv(2)); stream.seek(0)
            print(stream.read().decode())
        """
    )
    assert told == "ok"


def test_status_says_what_holds() -> None:
    assert ("seccomp" in network_refused()) == (sys.platform == "linux")


@linux_only
def test_a_worker_dies_with_its_parent() -> None:
    code = (
        "import subprocess, sys, time\n"
        "inner = 'import sys, time\\nfrom omi_edge.sandbox import die_with_parent\\ndie_with_parent()\\n"
        'print("up", flush=True)\\ntime.sleep(600)\'\n'
        "child = subprocess.Popen([sys.executable, '-c', inner], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        descriptor = os.pidfd_open(child)  # type: ignore[attr-defined,unused-ignore]
        parent.send_signal(signal.SIGKILL)
        try:
            assert signalled(descriptor)
        finally:
            os.close(descriptor)


def signalled(descriptor: int) -> bool:
    """Wait until the process behind ``descriptor`` has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(10_000))
