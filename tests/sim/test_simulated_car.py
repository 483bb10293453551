"""The simulated car as hardware: which pulse does what, pictures and their moments, laps, put-backs, lost signals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from calibration.mapping import Calibration, default_sim_calibration, speed_pulse_us, steering_pulse_us
from sim.car_spec import CameraSpec, CarSpec
from sim.errors import SimError
from sim.look import nominal_appearance
from sim.simulated_car import SIGNAL_LOST_S, STEP_S, LapCounter, Pose, SimulatedCar
from sim.track import load_track
from sim.track_set import TrackSet
from sim.world import mild
from vehicle.cameras.base import Frame

OVAL = load_track("first_oval")
ROAD = TrackSet([OVAL])
ONE = np.zeros(1, np.int64)
TRUE = default_sim_calibration()
NEUTRAL = (TRUE.steering.center_us, TRUE.throttle.neutral_us)


def pulses(steering_deg: float, speed_mps: float, calibration: Calibration = TRUE) -> tuple[float, float]:
    """What a gate with this calibration sends for a command."""
    top_mps = CarSpec().motor.max_speed_mps
    return steering_pulse_us(calibration, steering_deg), speed_pulse_us(calibration, speed_mps, model_max_mps=top_mps)


def drive(
    car: SimulatedCar, steering_us: float | None, throttle_us: float | None, seconds: float
) -> tuple[Pose, list[Frame]]:
    """Hold one pair of pulses; the pose at the end, and the pictures delivered meanwhile."""
    frames = []
    for _ in range(round(seconds / STEP_S)):
        car.step(steering_us, throttle_us)
        frames += car.frames()
    return car.history[-1], frames


def pursuit_deg(car: SimulatedCar, ahead_m: float = 0.5) -> float:
    """Steering towards a point of the centre line ahead, from what the simulator knows."""
    pose = car.history[-1]
    here = np.array([[pose.x_m, pose.y_m]])
    target, _ = ROAD.pose_at(ONE, ROAD.project(ONE, here).s_m + ahead_m)
    to = (target - here)[0]
    angle = math.atan2(to[1], to[0]) - pose.heading_rad
    curvature = 2 * math.sin(angle) / max(float(np.hypot(*to)), 0.1)
    return float(np.clip(math.degrees(math.atan(car.car.body.wheelbase_m * curvature)), -30, 30))


def follow(car: SimulatedCar, speed_mps: float, seconds: float) -> None:
    for _ in range(round(seconds / STEP_S)):
        car.step(*pulses(pursuit_deg(car), speed_mps))


def turned_rad(before: Pose, after: Pose) -> float:
    return math.remainder(after.heading_rad - before.heading_rad, 2 * math.pi)


# --- pulses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "sign"), [("left_us", 1), ("right_us", -1)])
def test_a_steering_pulse_turns_to_its_side(end: str, sign: int) -> None:
    car = SimulatedCar(OVAL)
    half_way = (NEUTRAL[0] + getattr(TRUE.steering, end)) / 2
    start = car.history[-1]
    pose, _ = drive(car, half_way, pulses(0, 0.8)[1], 0.6)
    assert car.off_track == 0
    assert sign * turned_rad(start, pose) > 0.2


def test_a_forward_pulse_drives_forward_and_straight() -> None:
    car = SimulatedCar(OVAL)
    start = car.history[-1]
    pose, _ = drive(car, *pulses(0, 0.8), 1.0)
    ahead = (pose.x_m - start.x_m) * math.cos(start.heading_rad) + (pose.y_m - start.y_m) * math.sin(start.heading_rad)
    assert 0.4 < ahead < 0.8
    assert abs(turned_rad(start, pose)) < 0.01
    assert car.facts()["moving"]


def test_a_reverse_pulse_drives_backwards_and_progress_falls() -> None:
    car = SimulatedCar(OVAL)
    pose, _ = drive(car, *pulses(0, -0.5), 1.0)
    assert pose.speed_mps == pytest.approx(-0.5, rel=0.1)
    assert -0.6 < car.counter.distance_m < -0.2
    assert 0.2 < pose.travelled_m < 0.6


def test_neutral_stays_put() -> None:
    car = SimulatedCar(OVAL)
    start = car.history[-1]
    pose, _ = drive(car, *NEUTRAL, 3.0)
    assert math.hypot(pose.x_m - start.x_m, pose.y_m - start.y_m) < 0.002
    assert not car.facts()["moving"]
    assert car.facts()["laps"] == 0 and car.counter.distance_m == 0


def test_asked_for_0_8_it_drives_0_8() -> None:
    car = SimulatedCar(OVAL)
    follow(car, 0.8, 2.0)
    follow(car, 0.8, 3.0)
    speeds = [pose.speed_mps for pose in car.history if pose.time_s > 2.0]
    assert np.mean(speeds) == pytest.approx(0.8, rel=0.03)


def test_a_wrong_centre_makes_it_drift() -> None:
    car = SimulatedCar(OVAL)
    wrong = replace(TRUE, steering=replace(TRUE.steering, center_us=TRUE.steering.center_us + 60, points=()))
    start = car.history[-1]
    pose, _ = drive(car, *pulses(0, 0.8, wrong), 1.0)
    # 60 of the 250 us between centre and left are about 7 degrees: 0.6 rad/s at 0.8 m/s.
    assert turned_rad(start, pose) > 0.25


def test_a_wrong_throttle_makes_another_speed() -> None:
    right, wrong = SimulatedCar(OVAL), SimulatedCar(OVAL)
    foreign = Calibration(TRUE.steering, replace(TRUE.throttle, curve=()))  # DeepRacer's formula, not measured
    good, _ = drive(right, *pulses(0, 0.8), 1.0)
    bad, _ = drive(wrong, *pulses(0, 0.8, foreign), 1.0)
    assert abs(bad.speed_mps - good.speed_mps) > 0.1


@pytest.mark.parametrize("bad_us", [math.nan, math.inf, 499.0, 2501.0, 0.0])
@pytest.mark.parametrize("channel", [0, 1])
def test_a_pulse_that_no_servo_takes_is_refused_and_nothing_moves(bad_us: float, channel: int) -> None:
    car = SimulatedCar(OVAL)
    both = [1450.0, 1450.0]
    both[channel] = bad_us
    with pytest.raises(SimError, match="pulse of"):
        car.step(*both)
    assert car.time_s == 0


# --- no pulses ------------------------------------------------------------------------------------------------------


def test_without_pulses_ever_the_motor_idles() -> None:
    car = SimulatedCar(OVAL)
    start = car.history[-1]
    pose, frames = drive(car, None, None, 1.0)
    assert math.hypot(pose.x_m - start.x_m, pose.y_m - start.y_m) < 0.002
    assert not car.signal and len(frames) > 10  # the camera has its own supply


def test_a_lost_signal_stops_the_car_after_100_ms() -> None:
    held, lost = SimulatedCar(OVAL), SimulatedCar(OVAL)
    for car in (held, lost):
        drive(car, *pulses(3, 0.8), 1.0)
    gap = round(SIGNAL_LOST_S / STEP_S) - 1
    for _ in range(gap):
        held.step(*pulses(3, 0.8))
        lost.step(None, None)
    assert lost.signal and lost.history[-1] == held.history[-1]  # four missing pulses change nothing
    held.step(*pulses(3, 0.8))
    lost.step(None, None)
    assert not lost.signal and lost.history[-1].speed_mps < held.history[-1].speed_mps  # the fifth does
    before = lost.history[-1]
    after, _ = drive(lost, None, None, 1.0)
    assert not lost.signal
    assert not lost.facts()["moving"] and abs(after.speed_mps) < 0.02
    assert after.travelled_m - before.travelled_m < 0.5
    again, _ = drive(lost, *pulses(0, 0.8), 0.5)
    assert lost.signal and again.speed_mps > 0.5


def test_a_lost_throttle_wire_alone_stops_it() -> None:
    car = SimulatedCar(OVAL)
    drive(car, *pulses(0, 0.8), 1.0)
    drive(car, NEUTRAL[0], None, 1.0)
    assert not car.signal and not car.facts()["moving"]


def test_braking_distance(record_property: pytest.RecordProperty) -> None:
    """From 0.8 m/s to rest after neutral, over cars that differ as two of one make do: docs state the mean."""
    distances = []
    for seed in range(6):
        car = SimulatedCar(OVAL, seed=seed, randomise=mild())
        follow(car, 0.8, 1.5)
        neutral_at = car.history[-1]
        assert neutral_at.speed_mps == pytest.approx(0.8, rel=0.1)
        for _ in range(100):
            car.step(*NEUTRAL)
            if not car.facts()["moving"]:
                break
        assert not car.facts()["moving"]
        distances.append(car.history[-1].travelled_m - neutral_at.travelled_m)
    mean_m = float(np.mean(distances))
    record_property("braking_distance_m", round(mean_m, 3))
    print(f"braking distance from 0.8 m/s: mean {mean_m:.3f} m, most {max(distances):.3f} m")
    assert 0.02 < mean_m and max(distances) < 0.5


# --- pictures -------------------------------------------------------------------------------------------------------


def test_pictures_come_at_the_cameras_rate_and_a_latency_late() -> None:
    car = SimulatedCar(OVAL, seed=3)
    latency_s, rate_hz = car.car.camera.latency_s, car.car.camera.frame_rate_hz
    seen: list[tuple[float, Frame]] = []
    for _ in range(200):
        car.step(*pulses(pursuit_deg(car), 0.8))
        seen += [(car.time_s, frame) for frame in car.frames()]
    frames = [frame for _, frame in seen]
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    assert len(frames) == pytest.approx(200 * STEP_S * rate_hz, abs=1.01)
    assert np.diff([frame.stamp_s for frame in frames]) == pytest.approx(1 / rate_hz)
    ages_s = np.array([at - frame.stamp_s for at, frame in seen])
    assert (ages_s >= latency_s - 1e-9).all() and (ages_s < latency_s + STEP_S + 1e-9).all()
    assert all(frame.pixels.shape == (120, 160) and frame.pixels.dtype == np.uint8 for frame in frames)


def test_pictures_can_be_fetched_at_the_moment_they_are_due() -> None:
    car = SimulatedCar(OVAL, seed=1)
    assert car.next_delivery_s == math.inf
    while car.next_delivery_s == math.inf:
        car.step(*NEUTRAL)
        assert not car.frames(0.0)
    due_s = car.next_delivery_s
    assert not car.frames(due_s - 0.001)
    (frame,) = car.frames(due_s)
    assert due_s == pytest.approx(frame.stamp_s + car.car.camera.latency_s)
    assert car.next_delivery_s > due_s


def test_a_picture_shows_the_moment_of_exposure_not_of_delivery() -> None:
    cars = [
        SimulatedCar(OVAL, car=CarSpec(camera=CameraSpec(latency_s=latency_s)), seed=2) for latency_s in (0.0, 0.15)
    ]
    prompt, late = (drive(car, *pulses(5, 1.0), 1.2)[1] for car in cars)
    assert len(prompt) >= len(late) + 2
    for one, other in zip(prompt, late, strict=False):
        assert one.stamp_s == other.stamp_s
        assert np.array_equal(one.pixels, other.pixels)
    assert np.abs(prompt[-1].pixels.astype(int) - prompt[-3].pixels).mean() > 4  # it does move


def test_between_steps_the_camera_is_between_poses(monkeypatch: pytest.MonkeyPatch) -> None:
    car = SimulatedCar(OVAL, seed=4)
    seen: list[np.ndarray] = []
    render = car._camera.render
    monkeypatch.setattr(
        car._camera, "render", lambda poses, *rest: (seen.append(poses[0].copy()), render(poses, *rest))
    )
    _, frames = drive(car, *pulses(8, 1.0), 1.0)
    times_s, xs_m, ys_m = (np.array([pose[k] for pose in car.history]) for k in range(3))
    assert len(seen) >= len(frames) > 10
    for frame, pose in zip(frames, seen, strict=False):
        assert pose[0] == pytest.approx(np.interp(frame.stamp_s, times_s, xs_m), abs=1e-9)
        assert pose[1] == pytest.approx(np.interp(frame.stamp_s, times_s, ys_m), abs=1e-9)
        assert np.linalg.norm(pose[3:]) == pytest.approx(1.0)


def test_no_two_pictures_of_a_standing_car_are_alike() -> None:
    _, frames = drive(SimulatedCar(OVAL), *NEUTRAL, 2.0)
    assert len({frame.pixels.tobytes() for frame in frames}) == len(frames) >= 29
    difference = frames[-1].pixels.astype(int) - frames[-2].pixels
    assert difference.std() == pytest.approx(2 * math.sqrt(2), rel=0.2)  # two grays each, independent


def test_looks() -> None:
    pictures = {
        look if isinstance(look, str) else "own": drive(SimulatedCar(OVAL, look=look), *NEUTRAL, 0.5)[1][-1].pixels
        for look in ("nominal", "random", replace(nominal_appearance(), road=200.0))
    }
    for one, other in (("nominal", "random"), ("nominal", "own"), ("random", "own")):
        assert np.abs(pictures[one].astype(int) - pictures[other]).mean() > 5
    with pytest.raises(SimError, match="unknown look 'shiny'"):
        SimulatedCar(OVAL, look="shiny")


def test_same_seed_and_pulses_give_the_same_bits() -> None:
    def run(seed: int) -> tuple[list[bytes], list[Pose], list[float]]:
        car = SimulatedCar(OVAL, seed=seed, randomise=mild())
        frames = []
        for step in range(150):
            both = (None, None) if 60 <= step < 70 else pulses(8 * math.sin(step / 20), 0.9)
            car.step(*both)
            frames += car.frames()
        return [f.pixels.tobytes() for f in frames], list(car.history), [f.stamp_s for f in frames]

    assert run(5) == run(5)
    other = run(6)
    assert run(5)[0] != other[0] and run(5)[2] != other[2]


# --- laps and the road ----------------------------------------------------------------------------------------------


def test_two_laps_in_lockstep() -> None:
    car = SimulatedCar(OVAL)
    waited_s = 0.5
    drive(car, *NEUTRAL, waited_s)
    while car.counter.laps < 2:
        car.step(*pulses(pursuit_deg(car), 1.2))
        assert car.time_s < 60
    facts = car.facts()
    assert facts["laps"] == 2 and facts["off_track"] == 0
    first_s, second_s = facts["lap_times_s"]
    # The clock starts with the first movement, and stops within the step in which the line is crossed.
    assert car.time_s - STEP_S - 0.1 <= waited_s + first_s + second_s <= car.time_s
    assert second_s < first_s  # the first one has a standing start
    assert second_s == pytest.approx(OVAL.length_m / 1.2, rel=0.05)
    assert 0 <= facts["progress_percent"] < 1


def test_a_car_off_the_road_is_put_back_where_progress_stopped() -> None:
    car = SimulatedCar(OVAL)
    best_m = 0.0
    while not car.off_track:
        best_m = max(best_m, car.counter.distance_m)
        car.step(*pulses(0, 1.5))  # straight on, out of the first bend
        assert car.time_s < 20
    pose = car.history[-1]
    there = ROAD.project(ONE, np.array([[pose.x_m, pose.y_m]]))
    assert there.distance_m[0] < 0.02
    assert there.s_m[0] == pytest.approx(car.counter.distance_m, abs=0.03)  # its middle started at 0
    assert pose.speed_mps == 0 and not car.facts()["moving"]
    assert car.counter.distance_m == pytest.approx(best_m, abs=0.05)
    assert car.facts()["progress_percent"] == pytest.approx(100 * best_m / OVAL.length_m, abs=0.5)
    drive(car, *NEUTRAL, 0.2)
    assert car.off_track == 1  # it stands on the road
    follow(car, 0.8, 2.0)
    assert car.off_track == 1 and car.counter.distance_m > best_m + 1.0


def test_a_short_cut_does_not_count() -> None:
    car = SimulatedCar(OVAL)
    follow(car, 0.8, 1.0)
    before_m = car.counter.distance_m
    xy, heading = ROAD.pose_at(ONE, np.array([OVAL.length_m / 2]))
    car.physics.place(ONE, xy, heading)
    follow(car, 0.8, 1.0)
    assert car.off_track == 0 and car.counter.distance_m == before_m


def test_lap_counter_interpolates_and_is_not_fooled_by_going_back() -> None:
    counter = LapCounter(10.0)
    counter.advance(0.0, 0.0, 1.0, moving=False)
    counter.advance(8.0, 1.0, 2.0, moving=True)
    counter.advance(4.0, 2.0, 4.0, moving=True)  # the line is crossed half way through
    assert counter.laps == 1 and list(counter.lap_times_s) == [pytest.approx(2.0)]
    counter.advance(-4.0, 4.0, 5.0, moving=True)
    counter.advance(4.0, 5.0, 6.0, moving=True)
    assert counter.laps == 1
    counter.advance(10.0, 6.0, 16.0, moving=True)
    assert counter.laps == 2 and counter.lap_times_s[1] == pytest.approx(14.0 - 3.0)


def test_lap_counter_wants_the_way_back_of_a_car_that_starts_backwards() -> None:
    counter = LapCounter(10.0)
    counter.advance(-1.0, 0.0, 1.0, moving=True)
    counter.advance(10.5, 1.0, 2.0, moving=True)
    assert counter.laps == 0
    counter.advance(1.0, 2.0, 3.0, moving=True)
    assert counter.laps == 1
