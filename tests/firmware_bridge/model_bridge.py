"""A MODEL of the firmware, in Python, from ``docs/bridge-protocol.md``; not the firmware and not a test itself.

It stands in for a board where a test is about the host, and where no AVR compiler is needed. What the real firmware
does is tested on the real firmware: the tests marked ``firmware``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from firmware_bridge.messages import (
    ARMING_FRAMES,
    PROTOCOL,
    SEQUENCES,
    Channel,
    Command,
    Config,
    ConfigEcho,
    Counters,
    Disarm,
    Estop,
    Hello,
    HelloReply,
    Radio,
    Reset,
    Result,
    State,
    Status,
    Telemetry,
    ToBridge,
    ToHost,
)
from firmware_bridge.protocol import bridge_decoder, encode
from tests.firmware_bridge.pty_port import PtyPort

FRAME_S = 0.020
STORED = Config(Channel(1450.0, 1200.0, 1700.0), Channel(1446.0, 1311.0, 1603.5))


@dataclass
class BridgeModel:
    """The documented state machine, without slew limit and radio timing. Time is an argument.

    `radio`, `protocol`, `mute` and `deaf` are for tests to change.
    """

    config: Config | None = STORED
    protocol: int = PROTOCOL
    mute: bool = False  # sends nothing
    deaf: bool = False  # takes nothing in
    radio: Radio = Radio.OFF
    supply_mv: int = 4980
    timeout_s: float = 0.080  # longer where a test is not about it, and the machine may be busy
    state: State = State.UNCONFIGURED
    session: bool = False
    counters: Counters = field(default_factory=Counters)
    pulses_us: tuple[float, float] = (0.0, 0.0)  # of the current servo frame
    taken: list[tuple[float, ToBridge]] = field(default_factory=list)  # everything good that came, and when

    def __post_init__(self) -> None:
        self.reset(0.0)

    def reset(self, now_s: float, cause: int = 2) -> None:
        """The chip starts; it says HELLO by itself at its next frame."""
        self.decoder = bridge_decoder()
        self.started_s, self.cause = now_s, cause
        self.state = State.UNCONFIGURED if self.config is None else State.DISARMED
        self.session, self.counters = False, Counters()
        self.sequence: int | None = None
        self.command: Command | None = None
        self.command_s = self.next_frame_s = now_s
        self.neutral_frames = 0
        self.fresh = False  # a command came in this frame
        self.steering_us = 0.0 if self.config is None else self.config.steering.neutral_us
        self.pulses_us = (0.0, 0.0)
        self.out = bytearray(self._greeting(0))

    def step(self, data: bytes, now_s: float) -> bytes:
        """Take bytes of the host; what the board sends."""
        for message in self.decoder.feed(b"" if self.deaf else data):
            self.taken.append((now_s, message))
            self._take(message, now_s)
        if self.state is State.ARMED and now_s - self.command_s > self.timeout_s:
            self.state, self.neutral_frames = State.FAILSAFE, 0
            self._count("timeouts")
        if self.radio is Radio.OVERRIDE and self.state not in (State.ESTOP, State.UNCONFIGURED):
            self.state = State.OVERRIDE
        if now_s >= self.next_frame_s:
            self.next_frame_s += FRAME_S  # a model that was late catches up
            self._frame(now_s)
        out = b"" if self.mute else bytes(self.out)
        self.out.clear()
        return out

    def commands(self) -> list[Command]:
        return [message for _, message in self.taken if isinstance(message, Command)]

    # --- messages

    def _take(self, message: ToBridge, now_s: float) -> None:
        if isinstance(message, Hello):
            self.session = message.protocol == PROTOCOL
            self.sequence, self.command, self.neutral_frames = None, None, 0
            if self.session and self.state in (State.ARMED, State.FAILSAFE):
                self.state = State.DISARMED
            self.out += self._greeting(message.nonce)
        elif isinstance(message, Config):
            self._configure(message)
        elif isinstance(message, Command):
            self._command(message, now_s)
        elif isinstance(message, Estop):
            self.state = State.ESTOP
        elif isinstance(message, Reset):
            if not self.session or self.state is State.OVERRIDE:
                self._count("state_refused")
            else:
                self.state = State.UNCONFIGURED if self.config is None else State.DISARMED
                self.neutral_frames = 0
        elif isinstance(message, Disarm):
            if self.state in (State.ARMED, State.FAILSAFE):
                self.state = State.DISARMED
            self.neutral_frames = 0

    def _configure(self, config: Config) -> None:
        if not self.session or self.state not in (State.UNCONFIGURED, State.DISARMED):
            self._count("state_refused")
            self.out += encode(ConfigEcho(Result.REFUSED_STATE, 1, self.config))
            return
        if self.config is None:
            self.steering_us = config.steering.neutral_us
        self.config, self.state = config, State.DISARMED
        self.out += encode(ConfigEcho(Result.IN_FORCE, 2, config)) + encode(ConfigEcho(Result.IN_FORCE, 1, config))

    def _command(self, command: Command, now_s: float) -> None:
        config = self.config
        if not self.session or config is None:
            return self._count("state_refused")
        for channel, pulse_us in ((config.steering, command.steering_us), (config.throttle, command.throttle_us)):
            if not channel.min_us <= pulse_us <= channel.max_us:
                return self._count("range_refused")
        if self.sequence is not None and not 1 <= (command.sequence - self.sequence) % SEQUENCES <= 0x7FFF:
            return self._count("sequence_refused")
        self.sequence, self.command, self.command_s, self.fresh = command.sequence, command, now_s, True
        if command.throttle_us != config.throttle.neutral_us:
            self.neutral_frames = 0
        return None

    # --- frames

    def _frame(self, now_s: float) -> None:
        config = self.config
        if config is not None:
            if self.state in (State.DISARMED, State.FAILSAFE):
                self._count_neutral(config, now_s)
            if self.command is not None and self.state in (State.DISARMED, State.ARMED, State.FAILSAFE):
                self.steering_us = self.command.steering_us
            armed = self.state is State.ARMED and self.command is not None
            throttle_us = self.command.throttle_us if armed and self.command else config.throttle.neutral_us
            self.pulses_us = self.steering_us, throttle_us
        self.fresh = False
        age_ms = None if self.command is None else min(int(1e3 * (now_s - self.command_s)), 0xFFFE)
        status = (Status.SESSION if self.session else Status(0)) | (Status.CONFIGURED if config else Status(0))
        seen = self.decoder.counters
        counters = replace(
            self.counters, good=seen.good % SEQUENCES, crc_errors=seen.crc_errors, frame_errors=seen.frame_errors
        )
        self.out += encode(Telemetry(
            int(1e3 * (now_s - self.started_s)), self.state, status, self.neutral_frames, self.sequence or 0, age_ms,
            *self.pulses_us, counters, self.cause, self.radio, 0.0, 0.0, self.supply_mv,
        ))  # fmt: skip

    def _count_neutral(self, config: Config, now_s: float) -> None:
        if self.command is None or now_s - self.command_s > self.timeout_s or self.radio is Radio.LOST:
            self.neutral_frames = 0
        elif self.fresh and self.command.throttle_us == config.throttle.neutral_us:
            self.neutral_frames += 1
            if self.neutral_frames >= ARMING_FRAMES:
                self.state = State.ARMED

    def _greeting(self, nonce: int) -> bytes:
        reply: ToHost = HelloReply(self.protocol, (1, 0, 0), 7, self.cause, self.state, nonce, 80, 20000)
        result = Result.NONE if self.config is None else Result.IN_FORCE
        return encode(reply) + encode(ConfigEcho(result, 1, self.config))

    def _count(self, name: str) -> None:
        self.counters = replace(self.counters, **{name: getattr(self.counters, name) + 1})


class ModelBoard:
    """The model on a pseudo-terminal, in a thread of its own.

    Args:
        boot_s: opening the port resets the board (DTR), and its bootloader is silent for so long. None: no reset.
    """

    def __init__(self, path: Path, model: BridgeModel | None = None, boot_s: float | None = None) -> None:
        self.model = model or BridgeModel()
        self.boot_s = boot_s
        self.port = PtyPort(path)
        self.booted = 0
        self._acts: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model board")
        self._thread.start()

    @property
    def path(self) -> str:
        return str(self.port.path)

    def act(self, what: Callable[[], None]) -> None:
        """Do something in the board's own thread, and wait until it is done."""
        done = threading.Event()

        def acted() -> None:
            what()
            done.set()

        with self._lock:
            self._acts.append(acted)
        assert done.wait(5.0)

    def unplug(self) -> None:
        self.act(self.port.unplug)

    def plug(self) -> None:
        """Plugged in again: it starts, without the old session."""
        self.act(lambda: (self.model.reset(time.monotonic(), cause=1), self.port.plug())[0])  # type: ignore[func-returns-value]

    def reset_chip(self, cause: int = 8) -> None:
        """As the watchdog does it: with the port open."""
        self.act(lambda: self.model.reset(time.monotonic(), cause))

    def send(self, data: bytes) -> None:
        """Bytes to the host that the model did not think of."""
        self.act(lambda: self.port.write(data))

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        self.port.unplug()

    def _run(self) -> None:
        opened, quiet_until_s = False, 0.0
        self.model.reset(time.monotonic(), cause=1)
        while not self._done.is_set():
            with self._lock:
                acts, self._acts = self._acts, []
            for act in acts:
                act()
            now_s = time.monotonic()
            was, opened = opened, self.port.opened
            if opened and not was and self.boot_s is not None:
                quiet_until_s = now_s + self.boot_s
                self.booted += 1
            data = self.port.read()
            if now_s < quiet_until_s:
                self.model.reset(now_s)
            else:
                out = self.model.step(data, now_s)
                if opened:
                    self.port.write(out)
            time.sleep(0.001)


def open_fds() -> int:
    """How many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))
