"""The port itself: it never waits, it says when it is gone, and every errno of opening has words."""

from __future__ import annotations

import errno
import os
import pty
import time
from collections.abc import Iterator

import pytest
from serial import SerialException

from firmware_bridge.errors import LinkError
from firmware_bridge.messages import Command, Disarm
from firmware_bridge.wire import Wire, _not_opened


@pytest.fixture
def ends() -> Iterator[tuple[int, Wire]]:
    """The far end's file descriptor, and the wire."""
    master, slave = pty.openpty()
    wire = Wire(os.ttyname(slave))
    os.close(slave)
    yield master, wire
    wire.close()
    try:
        os.close(master)
    except OSError:  # the test has closed it
        pass


def test_a_device_that_takes_no_bytes_is_an_error_and_never_waited_for(ends: tuple[int, Wire]) -> None:
    _, wire = ends
    begun_s = time.monotonic()
    with pytest.raises(LinkError, match="takes no more bytes") as caught:
        for number in range(100_000):
            wire.send(Command(number % 65536, 1450.0, 1446.0))
    assert "unplug" in caught.value.next_step
    wire.close()  # what was not sent is dropped, not waited for
    assert time.monotonic() - begun_s < 5.0


def test_nothing_comes_within_the_timeout(ends: tuple[int, Wire]) -> None:
    _, wire = ends
    begun_s = time.monotonic()
    assert wire.receive(0.1) == []
    assert 0.09 < time.monotonic() - begun_s < 1.0


def test_it_can_be_woken(ends: tuple[int, Wire]) -> None:
    _, wire = ends
    reader, writer = os.pipe()
    os.write(writer, b"w")
    begun_s = time.monotonic()
    assert wire.receive(5.0, reader) == []
    assert time.monotonic() - begun_s < 1.0
    os.close(reader)
    os.close(writer)


def test_a_far_end_that_is_gone(ends: tuple[int, Wire]) -> None:
    master, wire = ends
    os.close(master)
    with pytest.raises(LinkError, match="is gone"):
        wire.receive(1.0)
    with pytest.raises(LinkError, match="is gone: Input/output error"):
        wire.send(Disarm())


def test_a_closed_wire_is_gone_too(ends: tuple[int, Wire]) -> None:
    _, wire = ends
    wire.close()
    with pytest.raises(LinkError, match="is gone"):
        wire.send(Disarm())


@pytest.mark.parametrize(
    ("number", "cause", "cure"),
    [
        (errno.ENOENT, "not plugged in", "hotlap bridge find"),
        (errno.ENXIO, "not plugged in", "hotlap bridge find"),
        (errno.EACCES, "group dialout", "usermod -aG dialout"),
        (errno.EAGAIN, "another program", "hotlap status"),
        (errno.EBUSY, "another program", "hotlap status"),
        (errno.ENOTTY, "no serial port", "hotlap bridge find"),
        (None, "no serial port", "hotlap bridge find"),
    ],
)
def test_every_errno_of_opening_has_a_cause_and_a_cure(number: int | None, cause: str, cure: str) -> None:
    error = _not_opened("/dev/x", SerialException(number, "whatever") if number else SerialException("whatever"))
    assert error.what.startswith("/dev/x")
    assert cause in error.cause and cure in error.next_step
