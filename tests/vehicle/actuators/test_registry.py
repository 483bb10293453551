"""Actuators by name: the table, entry points of others, and what is said of a name that nobody knows."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from vehicle.actuators.base import Actuator
from vehicle.actuators.none import NoActuator, open_none
from vehicle.actuators.record import Recorder
from vehicle.actuators.registry import BUILT_IN, GROUP, known_actuators, open_actuator
from vehicle.car_config import ACTUATORS, ActuatorConfig
from vehicle.errors import ActuatorError, ConfigError
from vehicle.trace import read_trace

PACKAGE = """
class Valve:
    def write(self, steering_us, throttle_us, cause): self.last = (steering_us, throttle_us, cause)
    def facts(self): return {"name": "valve", "role": self.role}
    def close(self): pass
def open_valve(config, runtime, role):
    valve = Valve()
    valve.role = role
    return valve
def open_wrong(config, runtime, role):
    return object()
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with actuators of its own, one of which wants to be called ``sim``."""
    site = tmp_path / "site"
    metadata = site / "valves-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "valves_of_others.py").write_text(PACKAGE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: valves\nVersion: 1.0\n")
    lines = [
        "valve = valves_of_others:open_valve", "wrong = valves_of_others:open_wrong",
        "broken = valves_of_others:open_missing", "none = valves_of_others:open_valve",
    ]  # fmt: skip
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(site))


def test_the_table_names_what_car_toml_documents_and_setup_cfg_declares(root: Path) -> None:
    assert tuple(BUILT_IN) == ACTUATORS
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    declared = setup["options.entry_points"][GROUP].strip().splitlines()
    assert {tuple(line.split(" = ")) for line in declared} == set(BUILT_IN.items())


def test_none_is_opened_and_moves_nothing(tmp_path: Path) -> None:
    actuator = open_actuator(ActuatorConfig(kind="none"), tmp_path)
    assert isinstance(actuator, Actuator) and isinstance(actuator, NoActuator)
    actuator.write(1450.0, 1446.0, "drive")
    assert isinstance(open_none(ActuatorConfig(), tmp_path, "guard"), NoActuator)
    assert list(tmp_path.iterdir()) == []


def test_the_simulated_car_gets_runtime_folder_and_role(short_runtime: Path) -> None:
    actuator = open_actuator(ActuatorConfig(), short_runtime, "guard")
    try:
        assert actuator.facts()["address"].startswith(f"ipc://{short_runtime}/")
    finally:
        actuator.close()


@pytest.mark.parametrize("kind", ["sysfs_pwm", "pca9685", "rpi_gpio", "bridge"])
def test_hardware_that_is_not_here_is_an_error_that_helps(kind: str, tmp_path: Path) -> None:
    config = ActuatorConfig(kind=kind, pwm_root=str(tmp_path), i2c_bus=64, port=str(tmp_path / "ttyGone"))
    with pytest.raises(ActuatorError) as caught:
        open_actuator(config, tmp_path)
    assert caught.value.cause and caught.value.next_step


@pytest.mark.parametrize(("kind", "nearest"), [("pca9658", "pca9685"), ("syfs-pwm", "sysfs_pwm"), ("Sim", "sim")])
def test_an_unknown_name_gets_the_known_ones_and_the_nearest(kind: str, nearest: str, tmp_path: Path) -> None:
    with pytest.raises(ActuatorError, match=f"unknown actuator.kind '{kind}'") as caught:
        open_actuator(ActuatorConfig(kind=kind), tmp_path)
    assert repr(nearest) in caught.value.next_step
    assert all(name in caught.value.what for name in BUILT_IN)


@pytest.mark.usefixtures("third_party")
def test_actuators_of_other_packages(tmp_path: Path) -> None:
    assert open_actuator(ActuatorConfig(kind="valve"), tmp_path, "guard").facts() == {"name": "valve", "role": "guard"}
    assert set(known_actuators()) == {*BUILT_IN, "valve", "wrong", "broken"}
    assert isinstance(open_actuator(ActuatorConfig(kind="none"), tmp_path), NoActuator)  # hotlap's own comes first
    with pytest.raises(ActuatorError, match="'broken' .valves_of_others:open_missing. cannot be loaded"):
        open_actuator(ActuatorConfig(kind="broken"), tmp_path)
    with pytest.raises(ActuatorError, match="gave a object, which lacks write, facts or close"):
        open_actuator(ActuatorConfig(kind="wrong"), tmp_path)
    with pytest.raises(ActuatorError, match="valve") as caught:
        open_actuator(ActuatorConfig(kind="valves"), tmp_path)
    assert "'valve'" in caught.value.next_step


def test_record_wraps_any_of_them(tmp_path: Path) -> None:
    path = tmp_path / "pulses.csv"
    actuator = open_actuator(ActuatorConfig(kind="none", record=str(path)), tmp_path)
    assert isinstance(actuator, Recorder)
    actuator.write(1450.0, 1446.0, "neutral:disarmed")
    actuator.close()
    assert [(row.channel, row.pulse_us) for row in read_trace(path)] == [("steering", 1450.0), ("throttle", 1446.0)]


def test_a_record_that_cannot_be_opened_releases_the_device(short_runtime: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_actuator(ActuatorConfig(record=str(tmp_path / "missing" / "pulses.csv")), short_runtime)


def test_the_gate_gets_no_heavy_library_by_an_actuator(root: Path) -> None:
    program = (
        "import importlib, sys\n"
        "import vehicle.actuators.registry as registry, vehicle.trace\n"
        "[importlib.import_module(target.partition(':')[0]) for target in registry.BUILT_IN.values()]\n"
        "print(*{'numpy', 'cv2', 'onnxruntime', 'smbus2', 'RPi', 'torch', 'mujoco'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
