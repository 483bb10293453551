"""A configuration file is read whole and exactly, or refused with the file, the key, the value and what is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vehicle.config import check, from_mapping, load_toml, parse_json, ranged, to_toml
from vehicle.errors import ConfigError


@dataclass(frozen=True)
class Motor:
    lag_s: float = ranged(0.1, low=0.0, high=1.0, doc="First-order lag of the motor.")
    kind: str = ranged("brushed", choices=("brushed", "brushless"))


@dataclass(frozen=True)
class Lane:
    width_m: float
    name: str = "left"


@dataclass(frozen=True)
class Car:
    name: str = "kit"
    wheels: int = ranged(4, low=3, high=4)
    armed: bool = False
    box: tuple[float, float] = (0.3, 0.2)
    gains: tuple[float, ...] = ranged((1.0, 2.0), low=0.0, high=5.0)
    limit_mps: float | None = ranged(None, low=0.1, high=4.0)
    drive: Literal["rear", "all"] = "all"
    lanes: tuple[Lane, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    motor: Motor = field(default_factory=Motor)

    def __post_init__(self) -> None:
        if self.armed and self.name == "kit":
            raise ValueError("an armed car needs a name of its own")


@dataclass(frozen=True)
class Needs:
    track: str
    laps: int = 1


def read(tmp_path: Path, text: str) -> Car:
    path = tmp_path / "car.toml"
    path.write_text(text, encoding="utf-8")
    return load_toml(path, Car)


def test_absent_keys_keep_their_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Car()


def test_values_arrive_with_their_declared_types(tmp_path: Path) -> None:
    car = read(tmp_path, "wheels = 3\nbox = [1, 2]\nlimit_mps = 2\nlanes = [{width_m = 1}]\n[motor]\nlag_s = 0\n")
    assert car == Car(wheels=3, box=(1.0, 2.0), limit_mps=2.0, lanes=(Lane(1.0),), motor=Motor(lag_s=0.0))
    assert isinstance(car.box[0], float) and isinstance(car.motor.lag_s, float) and isinstance(car.limit_mps, float)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("weels = 4", ["unknown key weels", "nearest known key is wheels"]),
        ("[motor]\nlag = 0.1", ["unknown key motor.lag", "motor.lag_s"]),
        ('wheels = "4"', ["wheels = '4'", "is text", "a whole number", "3 to 4"]),
        ("wheels = true", ["wheels = True", "true or false", "a whole number"]),
        ("wheels = 4.0", ["wheels = 4.0", "a number with a point", "a whole number"]),
        ("armed = 1", ["armed = 1", "must be true or false"]),
        ("name = 1979-05-27", ["name", "a date", "text in quotes"]),
        ("wheels = 5", ["wheels = 5", "out of range", "3 to 4"]),
        ("[motor]\nlag_s = 1.0001", ["motor.lag_s = 1.0001", "out of range", "0.0 to 1.0"]),
        ("[motor]\nlag_s = nan", ["motor.lag_s = nan", "not a finite number"]),
        ("[motor]\nlag_s = -inf", ["motor.lag_s = -inf", "not a finite number"]),
        ('[motor]\nkind = "brushd"', ["motor.kind = 'brushd'", "'brushless'", "did you mean 'brushed'"]),
        ('drive = "front"', ["drive = 'front'", "'rear', 'all'"]),
        ("box = [1.0]", ["box = [1.0]", "has 1 values", "needs 2"]),
        ("box = 1.0", ["box = 1.0", "an array"]),
        ("gains = [1.0, 6.0]", ["gains[1] = 6.0", "out of range", "0.0 to 5.0"]),
        ("limit_mps = 0.0", ["limit_mps = 0.0", "0.1 to 4.0"]),
        ("motor = 3", ["motor = 3", "a table"]),
        ('lanes = [{name = "a"}]', ["lanes[0].width_m is missing"]),
        ("[notes]\na = 1", ["notes.a = 1", "text in quotes"]),
        ("armed = true", ["an armed car needs a name"]),
        ("wheels = 4\nwheels = 3", ["not valid TOML", "line 2"]),
        ("name = kit", ["not valid TOML", "line 1"]),
        ("a = " + "[" * 5000, ["not valid TOML"]),
        ("[motor]\nlag_s = 1" + "0" * 400, ["motor.lag_s", "too large"]),
    ],
)
def test_a_mistake_names_file_key_value_and_what_is_allowed(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    for word in [str(tmp_path / "car.toml"), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_the_limits_themselves_are_allowed(tmp_path: Path, edge: float) -> None:
    assert read(tmp_path, f"[motor]\nlag_s = {edge}").motor.lag_s == edge


def test_a_required_key_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"run\.toml: track is missing"):
        from_mapping({}, Needs, where="run.toml")
    assert from_mapping({"track": "oval"}, Needs, where="run.toml") == Needs("oval")


def test_complete_wants_every_key() -> None:
    with pytest.raises(ConfigError, match="laps is missing"):
        from_mapping({"track": "oval"}, Needs, where="x.json", complete=True)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_toml(tmp_path / "none.toml", Car)
    (tmp_path / "binary.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match=r"not UTF-8 text: byte 8 is 0xff"):
        load_toml(tmp_path / "binary.toml", Car)


def test_check_judges_an_instance_made_in_code() -> None:
    check(Car(), where="car")
    with pytest.raises(ConfigError, match=r"car: motor\.lag_s = 7\.0 is out of range"):
        check(Car(motor=Motor(lag_s=7.0)), where="car")


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
number = st.floats(allow_nan=False, allow_infinity=False)
cars = st.builds(
    Car,
    name=text.filter(lambda t: t != "kit"),
    wheels=st.sampled_from([3, 4]),
    armed=st.booleans(),
    box=st.tuples(number, number),
    gains=st.lists(st.floats(0.0, 5.0), max_size=4).map(tuple),
    limit_mps=st.none() | st.floats(0.1, 4.0),
    lanes=st.lists(st.builds(Lane, number, text), max_size=2).map(tuple),
    notes=st.dictionaries(text, text, max_size=3),
    motor=st.builds(Motor, st.floats(0.0, 1.0), st.sampled_from(["brushed", "brushless"])),
)


@settings(max_examples=150, deadline=None, database=None)
@given(cars)
def test_what_is_written_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, car: Car) -> None:
    path = tmp_path_factory.getbasetemp() / "round.toml"
    path.write_text(to_toml(car), encoding="utf-8", newline="\n")
    assert load_toml(path, Car) == car


def test_documentation_and_limits_become_comments() -> None:
    assert "# First-order lag of the motor. (0.0 to 1.0)\nlag_s = 0.1\n" in to_toml(Car())


@pytest.mark.parametrize("bad", [Car(box=(math.nan, 0.0)), Car(limit_mps=math.inf)])
def test_what_has_no_toml_form_is_not_written(bad: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be written as TOML"):
        to_toml(bad)


@pytest.mark.parametrize("bad", ["{", "[NaN]", "[Infinity]", '{"a": 1, "a": 2}', b"\xff", "[" * 100000])
def test_json_is_parsed_strictly(bad: str | bytes) -> None:
    with pytest.raises(ConfigError, match=r"x\.json is not valid JSON"):
        parse_json(bad, where="x.json")
    assert parse_json('{"a": [1, 2.5, null]}', where="x.json") == {"a": [1, 2.5, None]}
