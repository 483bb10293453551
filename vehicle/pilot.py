"""The pilot process: camera to policy to intent, at a fixed rate. ``python -m vehicle.pilot --runtime DIR``.

It may hang, crash or be killed at any time; the gate notices. One loop in the main thread does everything but read
the camera, which the grabber's thread does. Sockets: ``vehicle.pilot_links``; decisions: ``vehicle.pilot_core``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import cv2

from vehicle.bundle import Bundle
from vehicle.cameras.base import Camera, Frame
from vehicle.cameras.grabber import THREAD_NAME, Grabber
from vehicle.cameras.registry import open_camera
from vehicle.car_config import CarConfig, load_car_config
from vehicle.drive_log import DriveLog
from vehicle.errors import CameraError, HotlapError, SlotError
from vehicle.fast_policy import FastPolicy, calm_collector
from vehicle.frame_log import log_facts, open_frame_log, put_frame
from vehicle.messages import encode
from vehicle.notify import notify, watchdog_interval_s
from vehicle.observation import to_observation
from vehicle.parent import end_with_parent
from vehicle.pilot_core import MAX_FRAME_AGE_S, Model, PilotCore, Proof, Schedule
from vehicle.pilot_links import PilotLinks
from vehicle.pilot_model import FileModel, ModelSource, StoredModel
from vehicle.pilot_picture import picture_answer
from vehicle.realtime import go_first

_REOPEN_S = 1.0  # a camera that is gone is tried again this often
_ANNOUNCE_S = 0.5
_PREVIEW_S = 0.099  # at most 10 Hz, and at 10 Hz every one
_PICTURE_AGE_S = 1.0  # of a picture that only somebody who calibrates the camera looks at
_LONGEST_WAIT_S = 0.1  # so that requests and signals are seen to even at 1 Hz


class Pilot:
    """Camera, policy and sockets of one car.

    Args:
        source: the model is loaded here, and again at a reload.

    Raises:
        HotlapError: model, camera or sockets are not to be had.
    """

    def __init__(self, config: CarConfig, runtime: Path, source: ModelSource) -> None:
        self._config, self._runtime, self._source = config, runtime, source
        self._stopped = False
        self._commit: threading.Thread | None = None
        bundle, trial = source.load()
        self._policy, self._core = FastPolicy(bundle), PilotCore(_model(bundle, trial))
        self._proof: Proof | None = Proof() if trial else None
        camera = open_camera(config.camera, runtime)  # here, so that what is wrong with it ends the process
        self._frames: DriveLog | None = None
        try:
            self._frames = open_frame_log(config)
            self._links = PilotLinks(runtime)
        except BaseException:
            if self._frames is not None:
                self._frames.close()
            camera.close()
            raise
        self._grabber = Grabber(lambda: camera)
        self._seen_seq = -1
        self._reopen_s = self._announce_s = self._preview_s = 0.0
        self._watchdog_s = watchdog_interval_s()
        self._fed_s = 0.0
        self._camera_told = ""
        self._schedule: Schedule | None = None
        calm_collector()

    def stop(self) -> None:
        """Make `run` return soon. May be called from a signal handler."""
        self._stopped = True

    def run(self) -> None:
        """Drive until `stop`."""
        drive = self._config.drive
        self._schedule = schedule = Schedule(drive.control_hz, drive.every_frame, time.monotonic())
        notify("READY=1")
        while not self._stopped:
            wait_s = min(schedule.wait_s(time.monotonic()), _LONGEST_WAIT_S)
            newer = self._grabber.wait_newer(self._seen_seq, wait_s)
            now_s = time.monotonic()
            if newer is not None:
                self._seen_seq = newer.seq
            if schedule.due(now_s, newer is not None):
                self._tick(now_s)
            elif newer is not None:
                self._links.send(encode(self._core.alive(newer, now_s)))
            self._housekeeping(time.monotonic())
        notify("STOPPING=1")

    def close(self) -> bool:
        """Release camera, sockets and log. False where the grabber's thread is stuck in the camera's driver."""
        freed = self._grabber.close()
        if self._commit is not None:
            self._commit.join(5.0)
        self._links.close()
        if self._frames is not None:
            self._frames.close()
        return freed

    # --- a tick

    def _tick(self, now_s: float) -> None:
        found: Frame | CameraError
        try:
            found = self._grabber.newest(MAX_FRAME_AGE_S, now_s)
        except CameraError as error:
            found = error
        frame = self._core.begin_tick(now_s, found)
        if frame is None:
            return
        output: tuple[float, float] | HotlapError
        begun_s = done_s = now_s
        try:
            observation = to_observation(frame.pixels)
            begun_s = time.monotonic()
            output = self._policy.act(observation)
            done_s = time.monotonic()
        except HotlapError as error:
            output = error
        intent = self._core.end_tick(frame, output, 1e3 * (done_s - begun_s), time.monotonic())
        if intent is not None:
            self._links.send(encode(intent))
            if self._frames is not None:
                put_frame(self._frames, now_s, observation, intent)
            if now_s - self._preview_s >= _PREVIEW_S:
                self._preview_s = now_s
                header = {
                    "seq": frame.seq,
                    "stamp_s": frame.stamp_s,
                    "steering_deg": intent.steering_deg,
                    "speed_mps": intent.speed_mps,
                }
                self._links.show(header, observation.tobytes())

    # --- what goes on beside it

    def _housekeeping(self, now_s: float) -> None:
        self._links.hear(now_s)
        gate = self._links.gate(now_s)
        if now_s >= self._announce_s and gate is not None:
            self._announce_s = now_s + _ANNOUNCE_S
            self._announce(gate)
        if self._proof is not None and self._commit is None:
            driving = gate is not None and gate.get("mode") == "autonomous"
            if self._proof.tick(now_s, driving, self._core.fault):
                # In a thread of its own: the disk may take longer than the car may be without an intent.
                self._commit = threading.Thread(target=self._commit_trial, name="hotlap-commit", daemon=True)
                self._commit.start()
        elif self._commit is not None and not self._commit.is_alive():
            self._commit = None
        for envelope, request in self._links.requests():
            self._links.answer(envelope, self._obey(request, now_s))
        if self._grabber.dead and now_s >= self._reopen_s:
            self._reopen(now_s)
        if self._watchdog_s is not None and now_s - self._fed_s >= self._watchdog_s:
            self._fed_s = now_s
            notify("WATCHDOG=1")

    def _announce(self, gate: dict[str, Any]) -> None:
        """Tell the gate which model it is, again where the gate was started anew. It changes only while disarmed."""
        model = self._core.model
        known = gate.get("model")
        same = isinstance(known, dict) and (known.get("sha256"), known.get("trial")) == (model.sha256, model.trial)
        if not same and gate.get("armed") is False:
            self._links.ask_gate({"op": "model", "sha256": model.sha256, "trial": model.trial})

    def _commit_trial(self) -> None:
        try:
            self._source.proved_healthy()
        except SlotError as error:
            _say(str(error))  # it stays on trial, and is tried again after another ten good seconds
            self._proof = Proof()
            return
        self._proof = None
        model = self._core.model
        self._core.model = Model(model.sha256, False, model.max_speed_mps, model.max_steering_deg)
        _say(f"model {model.sha256[:12]} has proved healthy: its trial is over")

    def _reopen(self, now_s: float) -> None:
        """Try a camera again that was unplugged; in the new grabber's thread, since that may take long."""
        self._reopen_s = now_s + _REOPEN_S
        what = self._core.fault.what if self._core.fault is not None else ""
        if what != self._camera_told:
            self._camera_told = what
            _say(f"camera: {what}; trying again every {_REOPEN_S:g} s")
        self._grabber.close(0.0)
        self._grabber = Grabber(self._open_again)
        self._seen_seq = -1

    def _open_again(self) -> Camera:
        return open_camera(self._config.camera, self._runtime)

    # --- requests

    def _obey(self, request: dict[str, Any] | None, now_s: float) -> dict[str, Any]:
        op = None if request is None else request.get("op")
        if op == "status":
            return self._status()
        if op == "reload":
            return self._reload(now_s)
        if op == "picture":
            return self._picture(now_s)
        return _refused("unknown_op", f"the pilot knows the ops status, reload and picture, not {str(op)[:40]!r}")

    def _status(self) -> dict[str, Any]:
        facts = self._grabber.facts()
        core = self._core.status()
        schedule = self._schedule
        counts = {"late": schedule.late, "missed": schedule.missed} if schedule is not None else {}
        return {
            "ok": True,
            "pid": os.getpid(),
            **core,
            "interval_ms": core["interval_ms"] | counts,
            "camera": facts,
            "fps": facts["fps"],
            "sent": self._links.sent,
            "dropped": self._links.dropped,
            "gate_refusal": self._links.refusal,
            "frames_log": log_facts(self._frames),
        }

    def _not_disarmed(self, now_s: float, what: str) -> dict[str, Any] | None:
        gate = self._links.gate(now_s)
        if gate is not None and gate.get("armed") is False:
            return None
        state = "armed" if gate is not None else "silent, so it may be armed"
        return _refused("armed", f"{what} only while disarmed, and the gate is {state}", "hotlap disarm")

    def _picture(self, now_s: float) -> dict[str, Any]:
        if (refused := self._not_disarmed(now_s, "whole pictures are given")) is not None:
            return refused
        try:
            return picture_answer(self._grabber.newest(_PICTURE_AGE_S, time.monotonic()))
        except CameraError as error:
            return _refused("no_picture", error.what, error.next_step)

    def _reload(self, now_s: float) -> dict[str, Any]:
        if (refused := self._not_disarmed(now_s, "the model changes")) is not None:
            return refused
        if self._commit is not None:
            return _refused("busy", "the model that drove is just being committed", "try again in a second")
        try:
            bundle, trial = self._source.load()
            policy = FastPolicy(bundle)
        except HotlapError as error:
            return _refused(str(getattr(error, "fault", "reload")), error.what, error.next_step)
        self._policy = policy
        self._core.take_model(_model(bundle, trial))
        self._proof = Proof() if trial else None
        self._announce_s = 0.0
        calm_collector()
        return {"ok": True, "model": bundle.sha256, "trial": trial}


def _model(bundle: Bundle, trial: bool) -> Model:
    space = bundle.action_space
    return Model(bundle.sha256, trial, space.max_speed_mps, space.max_steering_deg)


def _refused(reason: str, what: str, next_step: str = "") -> dict[str, Any]:
    return {"ok": False, "reason": reason, "what": what, "cause": "", "next": next_step, "blocked": []}


# --- the process


def main(argv: Sequence[str] | None = None) -> int:
    """Run the pilot. Returns the exit status: 0 after SIGTERM, SIGINT or SIGHUP, 1 for what `HotlapError` explains."""
    args = _arguments(argv)
    end_with_parent()
    # OpenCV's own threads would fight over the cores for the half millisecond that a resize takes.
    cv2.setNumThreads(1)
    try:
        config = load_car_config(args.config)
        source: ModelSource
        if args.bundle is not None:
            source = FileModel(args.bundle, args.sha, args.trial)
        else:
            from vehicle.slots import ModelStore  # not needed where the bundle is named

            source = StoredModel(ModelStore(config.state_path() / "models"))
        with _stop_signals() as stopper:
            _drive(config, args.runtime, source, stopper)
    except HotlapError as error:
        _say(str(error))
        return 1
    return 0


class _Stopper:
    """Passes a signal on to the pilot, also one that comes before there is one."""

    def __init__(self) -> None:
        self._stopped = False
        self._pilot: Pilot | None = None

    def stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        if self._pilot is not None:
            self._pilot.stop()

    def watch(self, pilot: Pilot) -> None:
        self._pilot = pilot
        if self._stopped:
            pilot.stop()


def _drive(config: CarConfig, runtime: Path, source: ModelSource, stopper: _Stopper) -> None:
    try:
        pilot = Pilot(config, runtime, source)
        try:
            stopper.watch(pilot)
            _say(f"ready, camera {config.camera.kind}, {config.drive.control_hz:g} Hz")
            pilot.run()
        finally:
            if not pilot.close():
                _say("the camera's driver does not return; it is left to the operating system")
    except CameraError:
        source.ended()  # that is not the model's fault
        raise
    except BaseException:
        source.crashed()
        raise
    source.ended()


@contextmanager
def _stop_signals() -> Iterator[_Stopper]:
    stopper = _Stopper()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, stopper.stop) for number in numbers}
    try:
        yield stopper
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    print(f"pilot: {text}", file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m vehicle.pilot", description="Camera to policy to intent.")
    parser.add_argument("--runtime", type=Path, required=True, metavar="DIR", help="folder of the sockets")
    parser.add_argument("--config", type=Path, metavar="car.toml", help="the car; without it the simulated one")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="without it: the active model of the store")
    parser.add_argument("--sha", default="", metavar="SHA256", help="what --bundle must hash to")
    parser.add_argument("--trial", action="store_true", help="tell the gate that the model of --bundle is on trial")
    args = parser.parse_args(argv)
    assert isinstance(args, argparse.Namespace)
    return args


def _leave(status: int) -> None:
    """End the process. With a thread that is stuck in a driver the interpreter is not asked to: it would crash."""
    if any(thread.name == THREAD_NAME for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    go_first()
    _leave(main())
