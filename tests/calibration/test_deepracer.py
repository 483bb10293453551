"""The original car's file: its defaults, both polarities, there and back, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from calibration.deepracer import from_deepracer, to_deepracer
from calibration.errors import CalibrationError
from calibration.mapping import duty_ns, speed_pulse_us, steering_pulse_us
from calibration.values import Calibration, Steering, Throttle
from tests.calibration.cars import calibrations

# aws-deepracer-servo-pkg: the defaults that are compiled in (spec 2.1)
DEFAULT = """{"Calibration":{"Motor":{"max":1603500,"mid":1446000,"min":1311000,"polarity":-1},
                "Servo":{"max":1700000,"mid":1450000,"min":1200000,"polarity":1},"version":1}}"""


def changed(**changes: Any) -> str:
    """The default file with members of it replaced: Motor_mid=1 and so on; None leaves one out."""
    parsed = json.loads(DEFAULT)
    for key, value in changes.items():
        *path, name = key.split("_")
        inner = parsed["Calibration"]
        for step in path:
            inner = inner[step]
        inner[name] = value
        if value is None:
            del inner[name]
    return json.dumps(parsed)


def test_the_cars_default_is_our_default() -> None:
    assert from_deepracer(DEFAULT) == from_deepracer(DEFAULT.encode()) == Calibration()
    assert json.loads(to_deepracer(Calibration())) == json.loads(DEFAULT)
    assert from_deepracer(changed(version=None)) == Calibration()
    assert from_deepracer(DEFAULT, max_deg=25.0).steering == Steering(max_deg=25.0)


@pytest.mark.parametrize("servo", [1, -1])
@pytest.mark.parametrize("motor", [1, -1])
def test_polarity_turns_the_wheels_the_way_the_original_car_does(servo: int, motor: int) -> None:
    """Left and forward are +1; times the polarity, above 0 is towards max, below towards min (spec 3.3)."""
    car = from_deepracer(changed(Servo_polarity=servo, Motor_polarity=motor))
    towards_left = 1700000 if servo > 0 else 1200000
    towards_forward = 1603500 if motor > 0 else 1311000
    assert duty_ns(steering_pulse_us(car, 30.0)) == towards_left
    assert duty_ns(steering_pulse_us(car, -30.0)) == 1700000 + 1200000 - towards_left
    assert duty_ns(speed_pulse_us(car, 1.0, model_max_mps=1.0)) == towards_forward
    assert duty_ns(speed_pulse_us(car, -1.0, model_max_mps=1.0)) == 1603500 + 1311000 - towards_forward
    again = json.loads(to_deepracer(car))["Calibration"]
    assert again["Servo"] == {"max": 1700000, "mid": 1450000, "min": 1200000, "polarity": servo}
    assert again["Motor"] == {"max": 1603500, "mid": 1446000, "min": 1311000, "polarity": motor}


@given(calibrations())
def test_there_and_back_to_a_nanosecond(calibration: Calibration) -> None:
    text = to_deepracer(calibration)
    back = from_deepracer(text, max_deg=calibration.steering.max_deg)
    for name in ("left_us", "center_us", "right_us"):
        assert getattr(back.steering, name) == pytest.approx(getattr(calibration.steering, name), abs=0.00051)
    for name in ("neutral_us", "forward_us", "reverse_us"):
        assert getattr(back.throttle, name) == pytest.approx(getattr(calibration.throttle, name), abs=0.00051)
    assert (back.steering.points, back.throttle.curve, back.throttle.forward_start_us) == ((), (), None)
    assert to_deepracer(back) == text
    for members in json.loads(text)["Calibration"].values():
        if isinstance(members, dict):  # what the original car's console accepts
            assert members["min"] < members["mid"] < members["max"]
            assert all(isinstance(value, int) for value in members.values())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["car.json is empty"]),
        ("[]", ["car.json: the top level is []"]),
        ("{}", ["Calibration is missing"]),
        ('{"Calibration": 1}', ["Calibration is 1, it must be an object"]),
        (DEFAULT[:-1] + ', "Calibraton": 1}', ["unknown key Calibraton", "nearest known key is Calibration"]),
        (changed(Motr=1), ["unknown key Calibration.Motr", "nearest known key is Calibration.Motor"]),
        (changed(Servo=None), ["Calibration.Servo is missing"]),
        (changed(Servo_mid=None), ["Calibration.Servo.mid is missing"]),
        (
            changed(Servo_polarty=1),
            ["unknown key Calibration.Servo.polarty", "nearest known key is Calibration.Servo.polarity"],
        ),
        (changed(Servo_mid=1450000.0), ["Calibration.Servo.mid is 1450000.0, it must be a whole number"]),
        (changed(Servo_mid="1450000"), ['Calibration.Servo.mid is "1450000"']),
        (DEFAULT.replace("1450000", "NaN"), ["NaN is not a JSON number"]),
        (DEFAULT.replace('"mid":1450000', '"mid":1450000,"mid":1'), ["the key 'mid' stands twice"]),
        (changed(version=2), ["Calibration.version = 2"]),
        (changed(version="1"), ['Calibration.version is "1"']),
        (changed(Servo_polarity=0), ["Calibration.Servo.polarity = 0 is neither 1 nor -1", "stands still"]),
        (changed(Motor_polarity=2), ["Calibration.Motor.polarity = 2"]),
        (changed(Motor_mid=1311000), ["Calibration.Motor: min 1311000, mid 1311000, max 1603500 ns", "ascending"]),
        (changed(Servo_min=1800000), ["Calibration.Servo: min 1800000"]),
        (changed(Servo_min=1200), ["car.json: steering.right_us = 1.2 us is out of range"]),
        (changed(Servo_max=10**400), ["too large"]),
        (changed(Motor_max=1447000), ["car.json: throttle", "reverse is 1 us from neutral"]),
    ],
)
def test_what_is_not_the_original_cars_is_refused(text: str, words: list[str]) -> None:
    with pytest.raises(CalibrationError) as caught:
        from_deepracer(text, where="car.json")
    for word in words:
        assert word in str(caught.value)
    assert caught.value.cause and caught.value.next_step


def test_what_does_not_hold_together_is_not_exported() -> None:
    with pytest.raises(CalibrationError, match="neutral is not between"):
        to_deepracer(Calibration(throttle=Throttle(neutral_us=1200.0)))
    with pytest.raises(CalibrationError, match="max_deg"):
        from_deepracer(DEFAULT, max_deg=0.0)
