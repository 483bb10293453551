from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from vehicle.notify import notify, watchdog_interval_s


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(2.0)
        yield listener


def test_nobody_asked() -> None:
    assert "NOTIFY_SOCKET" not in os.environ
    assert notify("READY=1") is False


def test_a_socket_in_the_file_system(manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    assert notify("READY=1\nSTATUS=disarmed") is True
    assert manager.recv(100) == b"READY=1\nSTATUS=disarmed"


def test_an_abstract_socket(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"hotlap-{uuid.uuid4().hex}"
    manager.bind("\0" + name)
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
    assert notify("WATCHDOG=1") is True
    assert manager.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", ("/nowhere/notify", "relative", "vsock:2:1", "/" + "x" * 200))
def test_an_address_that_does_not_work_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify("READY=1") is False


def test_a_manager_that_does_not_read_is_not_waited_for(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    begun_s = time.monotonic()
    sent = [notify("WATCHDOG=1") for _ in range(5000)]
    assert sent[0] is True
    assert sent[-1] is False
    assert time.monotonic() - begun_s < 5.0


def test_half_of_what_the_watchdog_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_interval_s() == 0.5
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_interval_s() == 0.5
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))  # of our parent, say
    assert watchdog_interval_s() is None


@pytest.mark.parametrize("allowed", ("", "0", "-5", "soon"))
def test_no_watchdog(allowed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", allowed)
    assert watchdog_interval_s() is None
