"""The bridge on a bench, twice: its pure C code on this machine, and the compiled firmware in a simulated ATmega328P."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.firmware import wire
from tests.firmware.wire import Config, Echo, HelloReply, Telemetry

CYCLES_PER_US = 16
FRAME_MS = 20
WIRE_ROOM = 45  # TX_WIRE_BYTES of proto.h
RADIO_PINS = (2, 3, 4)  # steering, throttle, switch
STEERING, THROTTLE = 0, 1


class Rig(ABC):
    """What both have: bytes in, messages and pulses out, and a clock that goes on only when asked."""

    def __init__(self) -> None:
        self.sequence = 0
        self.config = Config()
        self._log: list[wire.Message] = []

    @abstractmethod
    def send_raw(self, data: bytes) -> None:
        """Bytes on the wire."""

    @abstractmethod
    def run_ms(self, ms: int) -> None:
        """Let time pass."""

    @abstractmethod
    def look(self) -> Telemetry:
        """The newest telemetry; lets time pass where that is needed to get one."""

    @abstractmethod
    def received(self) -> bytes:
        """Bytes that the bridge has sent since the last call."""

    @abstractmethod
    def pulses(self) -> list[tuple[int, int]]:
        """(steering, throttle) of each servo frame that has ended since the last call, in half us; (0, 0) has no pulse."""

    @abstractmethod
    def power_up(self, mcusr: int = 1, r2: int = 0) -> None:
        """Reset the chip; the EEPROM stays."""

    @abstractmethod
    def eeprom(self) -> bytes:
        """The first 32 bytes."""

    @abstractmethod
    def radio(self, frames: int, steering: int, throttle: int, switch: int) -> None:
        """That many frames of a receiver, with these pulses in half us; a 0 is a channel without one."""

    def messages(self) -> list[wire.Message]:
        """All messages since the last call."""
        self._log += wire.messages(self.received())
        log, self._log = self._log, []
        return log

    def send(self, payload: bytes) -> None:
        self.send_raw(wire.frame(payload))

    def hello(self, nonce: int = 1, protocol: int = 1) -> HelloReply:
        """Say HELLO; returns the answer to it."""
        self.messages()
        self.send(wire.hello(nonce, protocol))
        self.run_ms(6)
        log = self.messages()
        replies = [index for index, message in enumerate(log) if isinstance(message, HelloReply)]
        assert len(replies) == 1
        reply = log[replies[0]]
        assert isinstance(reply, HelloReply) and isinstance(log[replies[0] + 1], Echo), "an echo follows"
        self._log = [message for message in log if message is not reply]
        return reply

    def configure(self, config: Config) -> Echo:
        """Send a CONFIG; returns the echo that answers it."""
        self.messages()
        self.send(wire.config(config))
        self.run_ms(6)
        log = self.messages()
        echo = next(message for message in log if isinstance(message, Echo))
        self._log = log[log.index(echo) + 1 :]
        if echo.result == 0:
            self.config = config
        return echo

    def command(self, steering: int | None = None, throttle: int | None = None) -> None:
        """The next command; what is not given is neutral."""
        self.sequence += 1
        steering = self.config.steering[0] if steering is None else steering
        throttle = self.config.throttle[0] if throttle is None else throttle
        self.send(wire.command(self.sequence, steering, throttle))

    def frames(self, count: int, steering: int | None = None, throttle: int | None = None) -> None:
        """That many servo frames with a command in each."""
        for _ in range(count):
            self.command(steering, throttle)
            self.run_ms(FRAME_MS)

    def ready(self, config: Config | None = None) -> None:
        """Session open, config in force, disarmed."""
        self.hello()
        assert self.configure(config or Config()).result == 0
        assert self.look().state == wire.DISARMED

    def arm(self, config: Config | None = None) -> None:
        """Ready, and then armed by five neutral frames."""
        self.ready(config)
        self.frames(5)
        assert self.look().state == wire.ARMED


class _Entry(ctypes.Structure):
    _fields_ = [
        ("ms", ctypes.c_uint32), ("event", ctypes.c_uint32), ("steering", ctypes.c_uint32),
        ("throttle", ctypes.c_uint32), ("size", ctypes.c_uint32), ("bytes", ctypes.c_uint8 * WIRE_ROOM),
    ]  # fmt: skip


PULSES, SENT, RECEIVED = 0, 1, 2
NOTHING, FRAME, BAD_FRAME, BAD_CRC = range(4)


def load_native(path: Path) -> ctypes.CDLL:
    """The library of native/native.c, with its types."""
    library = ctypes.CDLL(str(path))
    rig, u8, u16, u32, i32 = ctypes.c_void_p, ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_int32
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "native_open": (rig, []),
        "native_close": (None, [rig]),
        "native_power_up": (None, [rig, u8, u8]),
        "native_send": (None, [rig, ctypes.c_char_p, u32]),
        "native_run": (None, [rig, u32]),
        "native_tell": (None, [rig]),
        "native_edge": (None, [rig, u32, ctypes.c_bool, u16]),
        "native_facts": (None, [rig, u16, u16]),
        "native_take": (u32, [rig, u32, ctypes.POINTER(_Entry), u32]),
        "native_eeprom": (ctypes.POINTER(u8), [rig]),
        "native_break_eeprom": (None, [rig, i32, i32]),
        "native_encode": (u32, [ctypes.c_char_p, u32, ctypes.c_char_p]),
        "native_decode": (u32, [ctypes.c_char_p, u32, ctypes.c_char_p, ctypes.POINTER(u32)]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Native(Rig):
    """The pure C code on this machine. A servo frame is decided at each 20th millisecond."""

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__()
        self._library = library
        self._rig = library.native_open()
        self._room = (_Entry * 256)()

    def close(self) -> None:
        self._library.native_close(self._rig)

    def send_raw(self, data: bytes) -> None:
        self._library.native_send(self._rig, data, len(data))

    def run_ms(self, ms: int) -> None:
        self._library.native_run(self._rig, ms)

    def _take(self, log: int) -> Iterator[_Entry]:
        while count := self._library.native_take(self._rig, log, self._room, len(self._room)):
            yield from self._room[:count]

    def look(self) -> Telemetry:
        self._library.native_tell(self._rig)
        self._log += wire.messages(self.received())
        newest = self._log[-1]
        assert isinstance(newest, Telemetry)
        return newest

    def received(self) -> bytes:
        return b"".join(bytes(entry.bytes[: entry.size]) for entry in self._take(SENT))

    def accepted(self) -> list[tuple[int, bytes]]:
        """(event, payload) of everything that ended with a delimiter since the last call."""
        return [(entry.event, bytes(entry.bytes[: entry.size])) for entry in self._take(RECEIVED)]

    def pulses(self) -> list[tuple[int, int]]:
        return [(entry.steering, entry.throttle) for entry in self._take(PULSES)]

    def power_up(self, mcusr: int = 1, r2: int = 0) -> None:
        self._library.native_power_up(self._rig, mcusr, r2)

    def eeprom(self) -> bytes:
        return bytes(self._library.native_eeprom(self._rig)[:32])

    def write_eeprom(self, data: bytes) -> None:
        cells = self._library.native_eeprom(self._rig)
        for at, byte in enumerate(data):
            cells[at] = byte

    def break_eeprom(self, cell: int = -1, writes_until_cut: int = -1) -> None:
        """A cell that keeps what it holds; power that is cut after so many writes."""
        self._library.native_break_eeprom(self._rig, cell, writes_until_cut)

    def facts(self, supply_mv: int, overruns: int) -> None:
        self._library.native_facts(self._rig, supply_mv, overruns)

    def edge(self, channel: int, high: bool, clock: int) -> None:
        self._library.native_edge(self._rig, channel, high, clock)

    def radio(self, frames: int, steering: int, throttle: int, switch: int) -> None:
        for _ in range(frames):
            for channel, width in enumerate((steering, throttle, switch)):
                if width:
                    self.edge(channel, True, 1000)
                    self.edge(channel, False, 1000 + width)
            self.run_ms(FRAME_MS)


class Pulse(NamedTuple):
    """Times in microseconds since the simulation began."""

    channel: int
    rise_us: float
    width_us: float
    cut: bool  # ended by a reset of the chip

    @property
    def fall_us(self) -> float:
        return self.rise_us + self.width_us


class _Pulse(ctypes.Structure):
    _fields_ = [
        ("rise", ctypes.c_uint64), ("fall", ctypes.c_uint64), ("channel", ctypes.c_uint32), ("cut", ctypes.c_uint32),
    ]  # fmt: skip


class _Byte(ctypes.Structure):
    _fields_ = [("at", ctypes.c_uint64), ("byte", ctypes.c_uint32), ("unused", ctypes.c_uint32)]


def load_lockstep(path: Path) -> ctypes.CDLL:
    """The library of sim/lockstep.c, with its types."""
    library = ctypes.CDLL(str(path))
    sim, u8, u32, u64, i = ctypes.c_void_p, ctypes.c_uint8, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "sim_open": (sim, [ctypes.c_char_p]),
        "sim_close": (None, [sim]),
        "sim_now": (u64, [sim]),
        "sim_run": (i, [sim, u64]),
        "sim_power_cycle": (None, [sim]),
        "sim_pull_reset": (None, [sim]),
        "sim_watchdog_resets": (u32, [sim]),
        "sim_blocked": (u32, [sim]),
        "sim_send": (u64, [sim, u64, ctypes.c_char_p, u32]),
        "sim_send_framing_error": (None, [sim, u64, u8]),
        "sim_pulses": (u32, [sim, ctypes.POINTER(_Pulse), u32]),
        "sim_bytes": (u32, [sim, ctypes.POINTER(_Byte), u32]),
        "sim_output": (i, [sim, i]),
        "sim_input": (i, [sim, u64, i, i]),
        "sim_eeprom": (None, [sim, i, u32, ctypes.c_char_p, u32]),
        "sim_supply": (None, [sim, u32]),
        "sim_bootloader": (None, [sim, u8, u8]),
        "sim_hang": (i, [sim, i]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Lockstep(Rig):
    """The compiled firmware in simavr. Time is exact to the CPU cycle."""

    def __init__(self, library: ctypes.CDLL, elf: Path) -> None:
        super().__init__()
        self._library = library
        self._sim = library.sim_open(str(elf).encode())
        assert self._sim, f"{elf} cannot be simulated"
        self._pulses = (_Pulse * 4096)()
        self._bytes = (_Byte * 4096)()
        self._open: list[Pulse] = []  # of frames whose other pulse has not ended yet
        self.run_ms(50)  # past the start of the first frame

    def close(self) -> None:
        self._library.sim_close(self._sim)

    @property
    def now_us(self) -> float:
        return float(self._library.sim_now(self._sim)) / CYCLES_PER_US

    def run_until_us(self, until_us: float) -> None:
        assert self._library.sim_run(self._sim, round(until_us * CYCLES_PER_US)) == 0, "the firmware crashed"

    def run_ms(self, ms: float) -> None:
        self.run_until_us(self.now_us + ms * 1000)

    def send_raw(self, data: bytes) -> None:
        self.send_at_us(0, data)

    def send_at_us(self, at_us: float, data: bytes) -> float:
        """Begin to send then, or when the wire is free; returns when the last stop bit is over."""
        end: int = self._library.sim_send(self._sim, round(at_us * CYCLES_PER_US), data, len(data))
        return end / CYCLES_PER_US

    def send_framing_error(self, byte: int) -> None:
        self._library.sim_send_framing_error(self._sim, 0, byte)

    def timed_bytes(self) -> list[tuple[float, int]]:
        found = []
        while count := self._library.sim_bytes(self._sim, self._bytes, len(self._bytes)):
            found += [(byte.at / CYCLES_PER_US, byte.byte) for byte in self._bytes[:count]]
        return found

    def received(self) -> bytes:
        """Lets a frame that is under way end: each begins and ends with a zero, and has none inside."""
        data = b""
        for _ in range(100):
            data += bytes(byte for _, byte in self.timed_bytes())
            if data.count(0) % 2 == 0:
                return data
            self.run_ms(0.05)
        raise AssertionError("a frame that does not end")

    def look(self) -> Telemetry:
        self.run_ms(2.2)  # a telemetry that is under way tells of before the call
        self.messages_so_far()
        for _ in range(100):
            self.run_ms(1)
            new = self.messages_so_far()
            if new and isinstance(new[-1], Telemetry):
                return new[-1]
        raise AssertionError("no telemetry for 100 ms")

    def forget_bytes(self) -> None:
        """After a reset, which may have torn a frame: go on to a pause and forget what came before."""
        self.timed_bytes()
        self.run_ms(3)
        while self.timed_bytes():  # a servo frame has room for a pause
            self.run_ms(3)

    def messages_so_far(self) -> list[wire.Message]:
        """What came since the last call; it stays in the log of `messages`."""
        new = list(wire.messages(self.received()))
        self._log += new
        return new

    def all_pulses(self) -> list[Pulse]:
        found = []
        while count := self._library.sim_pulses(self._sim, self._pulses, len(self._pulses)):
            found += [
                Pulse(item.channel, item.rise / CYCLES_PER_US, (item.fall - item.rise) / CYCLES_PER_US, bool(item.cut))
                for item in self._pulses[:count]
            ]
        return found

    def pulses(self) -> list[tuple[int, int]]:
        found = self._open + self.all_pulses()
        pairs: dict[float, dict[int, int]] = {}
        for pulse in found:
            pairs.setdefault(pulse.rise_us, {})[pulse.channel] = round(pulse.width_us * 2)
        self._open = [pulse for pulse in found if len(pairs[pulse.rise_us]) == 1]
        assert len(self._open) <= 1, "a pulse without its partner"
        return [(pair[STEERING], pair[THROTTLE]) for _, pair in sorted(pairs.items()) if len(pair) == 2]

    def power_up(self, mcusr: int = 1, r2: int = 0) -> None:
        self._library.sim_power_cycle(self._sim)
        self._library.sim_bootloader(self._sim, mcusr, r2)
        self.run_ms(50)

    def pull_reset(self) -> None:
        self._library.sim_pull_reset(self._sim)

    @property
    def watchdog_resets(self) -> int:
        return int(self._library.sim_watchdog_resets(self._sim))

    def blocked_us(self) -> float:
        """The longest time with interrupts off since the last call."""
        return int(self._library.sim_blocked(self._sim)) / CYCLES_PER_US

    def hang(self, where: int) -> None:
        """Stop the CPU for good at its next pass: 0 in the main loop, 1 in the timer interrupt."""
        assert self._library.sim_hang(self._sim, where) == 0, "the ELF has no such symbol"

    def eeprom(self) -> bytes:
        data = ctypes.create_string_buffer(32)
        self._library.sim_eeprom(self._sim, 0, 0, data, 32)
        return data.raw

    def write_eeprom(self, data: bytes) -> None:
        self._library.sim_eeprom(self._sim, 1, 0, data, len(data))

    def supply(self, millivolts: int) -> None:
        self._library.sim_supply(self._sim, millivolts)

    def radio(self, frames: int, steering: int, throttle: int, switch: int) -> None:
        begin_us = self.now_us + 100
        for index in range(frames):
            edges = []
            # Receivers send their channels one after the other.
            at_us = begin_us + index * FRAME_MS * 1000
            for pin, width in zip(RADIO_PINS, (steering, throttle, switch), strict=True):
                if width:
                    edges += [(at_us, pin, 1), (at_us + width / 2, pin, 0)]
                    at_us += width / 2 + 100
            for edge_us, pin, level in edges:
                self._library.sim_input(self._sim, round(edge_us * CYCLES_PER_US), pin, level)
        self.run_ms(frames * FRAME_MS)


@contextmanager
def native_rig(library: ctypes.CDLL) -> Iterator[Native]:
    """A fresh one, closed at the end."""
    rig = Native(library)
    try:
        yield rig
    finally:
        rig.close()


@contextmanager
def lockstep_rig(library: ctypes.CDLL, elf: Path) -> Iterator[Lockstep]:
    """A fresh one, closed at the end."""
    rig = Lockstep(library, elf)
    try:
        yield rig
    finally:
        rig.close()
