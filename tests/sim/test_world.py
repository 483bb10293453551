"""What is drawn for an episode: inside its ranges, from its own numbers, and told apart in training and after."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.camera import Optics
from sim.car_spec import CameraSpec, CarSpec
from sim.errors import SimError
from sim.look import HELD_OUT, random_appearance
from sim.physics import Dynamics
from sim.starts import Starts
from sim.track import Track, load_track
from sim.track_set import TrackSet
from sim.world import DRAWS, PRESETS, Randomisation, World, draw_world, mild, nominal
from vehicle.errors import ConfigError

Floats = NDArray[np.float64]
SPEC = CarSpec(camera=CameraSpec(roll_deg=2.0))


def drawn(ranges: Randomisation, k: int = 4000, seed: int = 0) -> World:
    uniform = np.random.default_rng(seed).random((k, DRAWS))
    return draw_world(ranges, SPEC, uniform, np.zeros((k, 2)))


def test_the_nominal_world_is_the_car_as_specified() -> None:
    world = drawn(nominal(), 50)
    wanted = Dynamics.nominal(SPEC, 50)
    for item in fields(Dynamics):
        assert np.array_equal(getattr(world.dynamics, item.name), getattr(wanted, item.name)), item.name
    perfect = Optics.nominal(SPEC.camera, 50)
    for item in fields(Optics):
        if item.name != "shadow_band":  # where a shadow of no strength would lie
            assert np.array_equal(getattr(world.optics, item.name), getattr(perfect, item.name)), item.name
    assert not world.delay_steps.any() and not world.camera_phase_s.any()
    assert np.all(world.camera_latency_s == SPEC.camera.latency_s)


def quantities(world: World) -> dict[str, Floats]:
    """What was drawn, by the names of the ranges."""
    camera, d, o = SPEC.camera, world.dynamics, world.optics
    return {
        "friction_scale": d.friction / SPEC.friction, "mass_scale": d.mass_scale, "steering_gain": d.steering_gain,
        "steering_offset_deg": d.steering_offset_deg, "steering_lag_s": d.steering_lag_s, "motor_gain": d.motor_gain,
        "motor_lag_s": d.motor_lag_s, "camera_latency_s": world.camera_latency_s,
        "camera_phase": world.camera_phase_s * camera.frame_rate_hz,
        "camera_pitch_deg": o.pitch_down_deg - camera.pitch_down_deg, "camera_roll_deg": o.roll_deg - camera.roll_deg,
        "camera_yaw_deg": o.yaw_deg, "camera_height_m": o.height_m - camera.height_m,
        "fov_scale": o.horizontal_fov_deg / camera.horizontal_fov_deg, "gain": o.gain, "bias": o.bias,
        "gamma": o.gamma, "blur": o.blur, "vignette": o.vignette, "noise": o.noise, "shadow": o.shadow,
    }  # fmt: skip


@pytest.mark.parametrize("preset", ["mild", "full"])
def test_every_quantity_fills_its_range(preset: str) -> None:
    ranges = PRESETS[preset]()
    world = drawn(ranges)
    found, o = quantities(world), world.optics
    found["shadow"] = o.shadow[o.shadow > 0]
    for name, values in found.items():
        low, high = getattr(ranges, name)
        span = high - low
        assert low - 1e-9 <= values.min() < low + 0.02 * span, name
        assert high - 0.02 * span < values.max() <= high + 1e-9, name
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.05 * span), name
    assert np.mean(o.shadow > 0) == pytest.approx(ranges.shadow_probability, abs=0.03)
    # No two quantities are drawn from one number.
    table = np.array([found[name] for name in found if name != "shadow"])
    correlation = np.abs(np.corrcoef(table)) - np.eye(len(table))
    assert correlation.max() < 0.08


def test_every_range_moves_its_own_quantity_and_no_other() -> None:
    plain = replace(nominal(), shadow_probability=1.0, shadow=(0.2, 0.2))
    before = quantities(drawn(plain, 5))
    for name in before:
        value = 0.0321
        after = quantities(drawn(replace(plain, **{name: (value, value)}), 5))
        assert after[name] == pytest.approx(np.full(5, value)), name
        for other in set(before) - {name}:
            assert np.array_equal(after[other], before[other]), (name, other)


def test_delays_are_whole_steps_with_equal_shares() -> None:
    counts = np.bincount(drawn(Randomisation()).delay_steps)
    assert len(counts) == 3
    assert counts / counts.sum() == pytest.approx(np.full(3, 1 / 3), abs=0.03)
    assert np.all(drawn(replace(nominal(), action_delay_steps=(1.0, 1.0))).delay_steps == 1)


def test_a_world_depends_on_its_own_numbers_only() -> None:
    uniform = np.random.default_rng(3).random((6, DRAWS))
    xy = np.arange(12.0).reshape(6, 2)
    together = draw_world(Randomisation(), SPEC, uniform, xy)
    alone = draw_world(Randomisation(), SPEC, uniform[4:5], xy[4:5])
    for part in ("dynamics", "optics"):
        for item in fields(getattr(alone, part)):
            both = getattr(getattr(together, part), item.name), getattr(getattr(alone, part), item.name)
            assert np.array_equal(both[0][4:5], both[1]), item.name


def test_shadows_fall_near_the_start() -> None:
    xy = np.tile([[40.0, -30.0]], (500, 1))
    uniform = np.random.default_rng(0).random((500, DRAWS))
    band = draw_world(Randomisation(), SPEC, uniform, xy).optics.shadow_band
    assert np.linalg.norm(band[:, :2], axis=1) == pytest.approx(np.ones(500))
    away = np.abs(np.sum(band[:, :2] * xy, axis=1) - band[:, 2])
    assert away.max() <= 3.0 and away.max() > 2.5


def test_presets_widen() -> None:
    assert list(PRESETS) == ["none", "mild", "full"]
    wide = Randomisation()
    for item in fields(Randomisation):
        small, large = getattr(mild(), item.name), getattr(wide, item.name)
        if isinstance(small, tuple) and item.name != "shadow":  # how dark, where there is one at all
            assert large[0] <= small[0] and small[1] <= large[1], item.name
    assert wide.looks >= 16


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"noise": (3.0, 1.0)}, "randomise.noise"),
        ({"gain": (1.0, 2.0, 3.0)}, "randomise.gain"),
        ({"looks": 0}, "looks"),
    ],
)
def test_impossible_ranges_are_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        replace(Randomisation(), **change)


# --- looks ------------------------------------------------------------------------------------------------------------


def test_appearances_are_reproducible_and_all_different() -> None:
    training = [random_appearance("first_oval", k, 5) for k in range(16)]
    assert training == [random_appearance("first_oval", k, 5) for k in range(16)]
    held_out = [random_appearance("first_oval", HELD_OUT + k, 5) for k in range(16)]
    elsewhere = [random_appearance("little_bean", k, 5) for k in range(16)]
    reseeded = [random_appearance("first_oval", k, 6) for k in range(16)]
    assert len(set(training + held_out + elsewhere + reseeded)) == 64


def test_lines_always_differ_from_the_road() -> None:
    looks = [random_appearance("first_oval", k, 0) for k in range(400)]
    assert min(abs(look.line - look.road) for look in looks) >= 50
    assert {look.center for look in looks} == {"dashed", "solid", "none"}
    assert any(look.barrier_height_m == 0 for look in looks) and any(look.barrier_height_m > 0.5 for look in looks)


# --- starts -----------------------------------------------------------------------------------------------------------


def starts(kind: str, tracks: list[Track], n: int, randomise: Randomisation | None = None) -> tuple[Starts, TrackSet]:
    together = TrackSet(tracks)
    lengths, widths = np.array([t.length_m for t in tracks]), np.array([t.width_m for t in tracks])
    return Starts(kind, together, lengths, widths, n, randomise or nominal()), together


def pair() -> list[Track]:
    oval = load_track("first_oval")
    return [oval, oval.reversed()]


def test_anywhere_is_anywhere_on_the_road_with_noise() -> None:
    n = 4000
    begin, tracks = starts("anywhere", pair(), n)
    start = begin.draw(np.arange(n), np.zeros(n, np.int64), np.random.default_rng(0).random((n, 4)))
    assert np.array_equal(start.track, np.arange(n) % 2)
    at = tracks.project(start.track, start.xy_m)
    share = at.s_m / tracks.length_m[start.track]
    assert np.histogram(share, 10, (0, 1))[0] == pytest.approx(np.full(10, n / 10), rel=0.2)
    half = pair()[0].width_m / 2
    assert 0.4 * half < np.abs(at.lateral_m).max() < 0.52 * half
    error = np.degrees((start.heading_rad - at.heading_rad + np.pi) % (2 * np.pi) - np.pi)
    assert 15.0 < np.abs(error).max() < 26.0, "20 degrees, and the angle between segment and tangent"
    assert np.abs(error.mean()) < 1.0 and abs(at.lateral_m.mean()) < 0.02 * half


def test_the_start_line_is_waypoint_zero_of_either_direction() -> None:
    still = replace(nominal(), start_lateral=0.0, start_heading_deg=0.0)
    begin, tracks = starts("start_line", pair(), 4, still)
    start = begin.draw(np.arange(4), np.zeros(4, np.int64), np.random.default_rng(0).random((4, 4)))
    assert start.xy_m == pytest.approx(np.tile(tracks.tracks[0].center[0], (4, 1)))
    turned = (start.heading_rad[1] - start.heading_rad[0]) % (2 * np.pi)
    assert turned == pytest.approx(np.pi, abs=1e-9)


def test_advance_goes_five_percent_further_each_episode() -> None:
    still = replace(nominal(), start_lateral=0.0, start_heading_deg=0.0)
    begin, tracks = starts("advance", [load_track("first_oval")], 2, still)
    shares = []
    for episode in range(21):
        start = begin.draw(np.array([0]), np.array([episode]), np.full((1, 4), 0.3))
        shares.append(float(tracks.project(start.track, start.xy_m).s_m[0]) / tracks.length_m[0])
    assert np.diff(shares[:20]) == pytest.approx(np.full(19, 0.05), abs=1e-3)
    assert shares[20] == pytest.approx(0.0, abs=1e-3) or shares[20] == pytest.approx(1.0, abs=1e-3)


def test_an_unknown_start_names_the_known_ones() -> None:
    with pytest.raises(SimError, match="anywhere, start_line, advance"):
        starts("middle", pair(), 1)
