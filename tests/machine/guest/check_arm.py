"""The base install on aarch64, its programs run by qemu-user: it imports, gives a model's golden vectors, and drives.

No time measured here says anything about a Pi: an emulated processor is some ten times slower, and its neighbours' load
is its own. Where a limit depends on time, it is given room in the open, by an argument that the product has.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calibration.mapping import Calibration
from calibration.store import save_calibration
from vehicle import slot_verify
from vehicle.bundle import GOLDEN_TOLERANCE
from vehicle.car_config import load_car_config
from vehicle.slot_install import install_bundle
from vehicle.slots import ModelStore
from vehicle.trace import read_trace

SHARED = Path("/mnt")
HOTLAP = (sys.executable, "-m", "hotlap")
ROOMS = ("vehicle", "calibration", "firmware_bridge")
TRAIN = ("torch", "mujoco", "numba", "gymnasium", "onnx", "matplotlib", "av")
NEUTRAL_US = Calibration().throttle.neutral_us
UNHURRIED_S = 10.0  # for an inference


@pytest.fixture(scope="module")
def car(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with car.toml and a state folder: a folder of pictures for the camera, and no actuator."""
    folder = tmp_path_factory.mktemp("car")
    (folder / "state").mkdir()
    (folder / "car.toml").write_text(
        f'state_dir = "{folder}/state"\n[camera]\nkind = "folder"\nsource = "{SHARED}/pictures"\n'
        '[actuator]\nkind = "none"\n'
    )
    save_calibration(folder / "state" / "calibration.json", Calibration())
    return folder


def hotlap(car: Path, *words: object, status: int | None = 0) -> dict[str, Any]:
    """What ``hotlap WORDS --json`` printed."""
    done = subprocess.run(
        [*HOTLAP, *map(str, words), "--json"], capture_output=True, text=True, timeout=900,
        env={"PATH": "/usr/bin:/bin", "HOME": str(car), "HOTLAP_RUNTIME": str(car / "run")},
    )  # fmt: skip
    logs = {path.name: path.read_text()[-1500:] for path in (car / "run").glob("*.log")}
    assert status in (None, done.returncode), (done.returncode, done.stdout, done.stderr, logs)
    return dict(json.loads(done.stdout))


def check_this_is_another_processor() -> None:
    assert platform.machine() == "aarch64"
    assert Path(sys.executable).resolve().read_bytes()[18:20] == b"\xb7\x00"  # EM_AARCH64 of its ELF header


def check_every_module_of_the_car_imports() -> None:
    names = []
    for room in ROOMS:
        package = importlib.import_module(room)
        names += [found.name for found in pkgutil.walk_packages(package.__path__, room + ".")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    assert len(names) > 60
    assert not {name for name in TRAIN if name in sys.modules or importlib.util.find_spec(name)}


def check_doctor(car: Path, facts: dict[str, Any]) -> None:
    found = hotlap(car, "doctor", "--config", car / "car.toml", status=None)
    assert "aarch64" in json.dumps(found), found
    facts["hotlap doctor"] = f"{len(json.dumps(found))} characters of JSON"


def check_golden_vectors_of_every_network_on_this_processor(facts: dict[str, Any]) -> None:
    said = []
    for path in sorted((SHARED / "networks").glob("*.tar.gz")):
        verdict = slot_verify.check_here(path, budget_s=UNHURRIED_S, runs=5)
        assert 0.0 <= verdict.golden_difference <= GOLDEN_TOLERANCE
        said.append(f"{path.name.removesuffix('.tar.gz')} {verdict.golden_difference:.1e}")
    assert said
    facts["golden vectors of x86 and here differ by"] = ", ".join(said) + f" (allowed: {GOLDEN_TOLERANCE:g})"


def check_a_bundle_is_installed_into_a_slot(car: Path, facts: dict[str, Any]) -> None:
    """By the command; where it finds this processor too slow, which it may be, by its function with a longer budget."""
    found = hotlap(car, "models", "install", SHARED / "bundle.tar.gz", "--config", car / "car.toml", status=None)
    if "error" in found:
        assert "too_slow" in found["error"]["what"] and found["error"]["next"], found
        facts["hotlap models install"] = f"refused: {found['error']['what']}; again with budget_s={UNHURRIED_S:g}"
        config = load_car_config(car / "car.toml")
        install_bundle(
            ModelStore(config.state_path() / "models"), SHARED / "bundle.tar.gz", config, Calibration(),
            budget_s=UNHURRIED_S, timeout_s=900.0,
        )  # fmt: skip
    else:
        facts["hotlap models install"] = "accepted"
    [model] = hotlap(car, "models", "list", "--config", car / "car.toml")["models"]
    hotlap(car, "models", "activate", model["sha256"], "--config", car / "car.toml")
    assert model["report"]["processor"] and model["report"]["golden_difference"] <= GOLDEN_TOLERANCE


def check_it_drives_from_a_folder_of_pictures(car: Path, facts: dict[str, Any]) -> None:
    """Some seconds; tried again where a busy machine left no steady ten pictures a second."""
    trace, driven = car / "pulses.csv", []
    for _ in range(4):
        trace.unlink(missing_ok=True)
        shutil.rmtree(car / "run", ignore_errors=True)
        result = hotlap(
            car, "drive", "--config", car / "car.toml", "--arm", "--duration", "10s", "--trace", trace, status=None
        )
        if not trace.exists():  # the gate was not up in time
            assert "error" in result, result
            continue
        rows = [row for row in read_trace(trace) if row.channel == "throttle"]
        driven = [row for row in rows if row.cause == "drive" and row.pulse_us != NEUTRAL_US]
        assert rows[0].cause == "neutral:start"
        assert len(rows) >= 10 and all(row.pulse_us == NEUTRAL_US for row in rows[-10:])
        if len(driven) >= 100:
            break
    assert len(driven) >= 100, (len(driven), result)
    assert result["exit_status"] == {"gate": 0, "pilot": 0}, result
    facts["driven"] = f"{len(driven)} pulses, then neutral"
