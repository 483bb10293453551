"""The tests of the tests: every branch of the pure C code is taken, and every small change of it is noticed."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.firmware.conftest import make
from tests.firmware.rigs import Lockstep, load_lockstep, lockstep_rig
from tests.firmware.suite import ROOT
from tests.firmware.test_pulses import stream
from tests.firmware.test_pulses import test_every_width_from_1000_to_2000_us_on_both_channels as check_widths
from tests.firmware.test_silence import LOOP
from tests.firmware.test_silence import test_a_hung_cpu_drives_no_longer_than_140_ms as check_hang
from tests.firmware.test_silence import (
    test_the_first_neutral_pulse_has_ended_103_ms_after_the_last_byte as check_silence,
)

PURE = ("proto.c", "config.c", "radio.c", "state.c", "store.c", "bridge.c")


def test_every_branch_of_the_pure_code_is_taken(firmware: Path, tmp_path: Path) -> None:
    counters = firmware / "build/coverage"
    for old in counters.glob("*.gcda"):
        old.unlink()
    suite: list[str | Path] = [sys.executable, ROOT / "tests/firmware/suite.py", counters / "libnative.so"]
    ran = subprocess.run(suite, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    notes = [str(counters / f"{Path(name).stem}.gcda") for name in PURE]
    subprocess.run(
        ["gcov", "--json-format", "--branch-probabilities", *notes], cwd=tmp_path, check=True, capture_output=True
    )
    seen, missed, branches = set(), [], 0
    for path in tmp_path.glob("*.gcov.json.gz"):
        for file in json.loads(gzip.decompress(path.read_bytes()))["files"]:
            if file["file"] not in PURE:
                continue
            seen.add(file["file"])
            for line in file["lines"]:
                branches += len(line["branches"])
                if not line["count"] or not all(branch["count"] for branch in line["branches"]):
                    missed.append(f"{file['file']}:{line['line_number']}")
    assert seen == set(PURE)
    assert branches > 200, "gcov counted no branches"
    assert not missed, f"not every branch is taken: {missed}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_small_change_of_the_pure_code_is_noticed(firmware: Path) -> None:
    done = subprocess.run(
        [sys.executable, firmware / "mutate.py"], capture_output=True, text=True, timeout=850, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Faults of the register layer, which only the simulated chip can show: (text, fault, who has to notice).
CHIP_FAULTS = {
    "no watchdog": ("hal_avr.c", "    wdt_enable(WDTO_60MS);\n", "", lambda chip: check_hang(chip, LOOP, 1)),
    "watchdog fed by the timer": ("main_avr.c", "        frames++;\n", "        frames++;\n        wdt_reset();\n",
                                  lambda chip: check_hang(chip, LOOP, 1)),
    "one count too long": ("hal_avr.c", "OCR1B = pulses.throttle - 1", "OCR1B = pulses.throttle", check_widths),
    "written at any tick": ("hal_avr.c", "return TCNT1 > LAST_TICK_FROM;", "return TCNT1 > 1000;",
                            lambda chip: stream(chip, 300, (0, 25_000), random.Random(1))),
    "timeout of 100 ms": ("state.h", "TIMEOUT_MS = 80,", "TIMEOUT_MS = 100,", lambda chip: check_silence(chip, 2892)),
}  # fmt: skip


@pytest.mark.parametrize("fault", CHIP_FAULTS)
def test_the_tests_of_the_chip_find_seeded_faults(firmware: Path, tmp_path: Path, fault: str) -> None:
    file, text, wrong, check = CHIP_FAULTS[fault]
    folder = tmp_path / "firmware"
    shutil.copytree(firmware, folder, ignore=shutil.ignore_patterns("build", "__pycache__"))
    source = (folder / file).read_text()
    assert source.count(text) == 1, "the line has changed"
    (folder / file).write_text(source.replace(text, wrong))
    make("all", folder=folder)
    library = load_lockstep(firmware / "build/liblockstep.so")
    with lockstep_rig(library, folder / "build/bridge.elf") as chip:
        assert isinstance(chip, Lockstep)
        with pytest.raises((AssertionError, ValueError, StopIteration, IndexError)):
            check(chip)
