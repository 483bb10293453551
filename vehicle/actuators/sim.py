"""The simulated car as an actuator: pulses go to the world process over ZeroMQ."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import zmq

from vehicle.actuators.pulses import check_pulses
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError

SOCKET = "world.pulses"
GONE_S = 0.2  # ten pulses; a world that is only late for one stays unnoticed
_QUEUE = 4  # pulses: an old one is worth nothing
# A stopped process still has a kernel that takes pulses, 40 s of them. ZeroMQ's own heartbeat notices it: no answer for
# this long ends the connection. Far above what a busy machine needs to answer.
_HEARTBEAT_MS, _HEARTBEAT_TIMEOUT_MS = 50, 300
_LINGER_MS = 100  # close() waits this long for the last pulse, which is neutral, to leave


class SimActuator:
    """Sends ``{"steering_us","throttle_us","stamp_s","from"}`` to the world; its motor idles after 100 ms without.

    Gate and guard each have their own connection; the world takes the pulse with the newest stamp. It never blocks: a
    pulse that cannot be sent is dropped, and after `GONE_S` without one that could be, that is an error. A world that
    runs but does not read is noticed late, when all queues are full; its frames stop, which the gate sees first.

    Raises:
        ActuatorError: the path of the socket is too long or not usable.
    """

    def __init__(self, runtime: Path, role: str) -> None:
        self._address = f"ipc://{runtime / SOCKET}"
        self._role = role
        self._sent_s: float | None = None  # of the last pulse that could be sent; of the first attempt before that
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, _QUEUE)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # without a peer, sending fails at once instead of queueing
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        try:
            self._socket.connect(self._address)
        except zmq.ZMQError as error:
            self.close()
            raise ActuatorError(
                f"{self._address} cannot be used: {error}",
                cause="the runtime folder's path is too long for a socket (107 bytes)",
                next_step="choose a short --runtime folder, for instance below /tmp or /run",
            ) from error

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        """See `vehicle.actuators.base.Actuator.write`."""
        check_pulses(steering_us, throttle_us)
        now_s = time.monotonic()
        pulse = {"steering_us": steering_us, "throttle_us": throttle_us, "stamp_s": now_s, "from": self._role}
        if self._sent_s is None:
            self._sent_s = now_s
        try:
            self._socket.send(json.dumps(pulse).encode(), zmq.NOBLOCK)
            self._sent_s = now_s
        except zmq.Again as error:
            if now_s - self._sent_s > GONE_S:
                raise ActuatorError(
                    f"world gone: it has taken no pulse for {now_s - self._sent_s:.2f} s ({self._address})",
                    cause="the process of the simulated car was not started, has ended, or is stopped",
                    next_step="start it again with hotlap drive",
                ) from error
        except zmq.ZMQError as error:
            raise ActuatorError(f"{self._address}: {error}", cause="the actuator was closed") from error

    def facts(self) -> dict[str, Any]:
        """Its name and address. A simulated car keeps its last pulse, as a PCA9685 does: it does not fail safe."""
        return {"name": "sim", "fails_safe": False, "shared": True, "address": self._address}

    def close(self) -> None:
        """Disconnect, after at most 0.1 s in which the last pulse may still leave."""
        self._socket.close()
        with contextlib.suppress(zmq.ZMQError):
            self._context.term()


def open_sim(config: ActuatorConfig, runtime: Path, role: str) -> SimActuator:
    """The entry point ``sim``."""
    return SimActuator(runtime, role)
