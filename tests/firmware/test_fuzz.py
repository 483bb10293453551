"""Broken streams. What is accepted has to be what an independent decoder accepts, no more and no less."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.firmware import wire
from tests.firmware.conftest import FIRMWARE
from tests.firmware.rigs import FRAME, Lockstep, Native, Rig
from tests.firmware.wire import Config

CHUNK = 5000


def host_frame(source: random.Random, sequence: int) -> bytes:
    """A frame of the host, mostly a command."""
    kind = source.random()
    if kind < 0.7:
        return wire.frame(wire.command(sequence, source.randrange(1900, 4100), source.randrange(1900, 4100)))
    if kind < 0.8:
        return wire.frame(wire.hello(source.randrange(65536), source.choice((1, 1, 2))))
    if kind < 0.85:
        limits = sorted(source.randrange(900, 5100) for _ in range(3))
        return wire.frame(wire.config(Config(source.randrange(3), (limits[1], limits[0], limits[2]))))
    if kind < 0.95:
        return wire.frame(bytes([source.choice((wire.ESTOP, wire.RESET, wire.DISARM))]))
    return wire.frame(bytes(source.randrange(12) for _ in range(source.randrange(1, 24))))


def corrupted(size: int, source: random.Random) -> bytes:
    """A stream in which about half of the frames are damaged, and which ends with a delimiter."""
    stream = bytearray()
    sequence = 0
    while len(stream) < size:
        sequence += 1
        data = bytearray(host_frame(source, sequence))
        for _ in range(source.choice((0, 0, 0, 1, 1, 2, 5))):
            at = source.randrange(len(data))
            match source.randrange(4):
                case 0:
                    data[at] ^= 1 << source.randrange(8)
                case 1:
                    data[at] = source.randrange(256)
                case 2:
                    del data[at]
                case _:
                    data[at:at] = bytes(
                        source.choice((0, source.randrange(256))) for _ in range(source.randrange(1, 4))
                    )
            if not data:
                break
        stream += data
    del stream[size - 1 :]
    return bytes(stream) + b"\0"


def compare(bridge: Rig, chunks: int, source: random.Random) -> int:
    """Send that many chunks; after each the counters have to be the independent decoder's. Returns the frames accepted."""
    accepted = 0
    before = bridge.look()
    for _ in range(chunks):
        stream = corrupted(CHUNK, source)
        expected = wire.decode(stream, wire.LONGEST_TO_BRIDGE)
        bridge.send_raw(stream)
        bridge.run_ms(len(stream) * 40 // 1000 + 2)
        after = bridge.look()
        good = sum(map(wire.known, expected.payloads))
        unknown = len(expected.payloads) - good
        assert (after.good - before.good) % 65536 == good
        assert (after.crc_errors - before.crc_errors) % 65536 == expected.crc_errors
        assert (after.frame_errors - before.frame_errors) % 65536 == expected.frame_errors + unknown
        assert after.overruns == 0
        if isinstance(bridge, Native):
            assert [payload for event, payload in bridge.accepted() if event == FRAME] == expected.payloads
        bridge.messages()
        bridge.pulses()
        accepted += good
        before = after
    return accepted


def test_a_million_corrupted_bytes_in_the_pure_code(native: Native) -> None:
    assert compare(native, 1_000_000 // CHUNK, random.Random(21)) > 30_000


@pytest.mark.slow
def test_a_million_corrupted_bytes_in_the_firmware(chip: Lockstep) -> None:
    assert compare(chip, 1_000_000 // CHUNK, random.Random(22)) > 30_000
    assert chip.watchdog_resets == 0


def frames_in_noise(bridge: Rig, count: int, source: random.Random) -> None:
    bridge.arm()
    before = bridge.look()
    sent = 0
    while sent < count:
        stream = bytearray()
        for _ in range(100):
            bridge.sequence += 1
            noise = bytes(
                source.choice((0, source.randrange(256), source.randrange(256))) for _ in range(source.randrange(50))
            )
            # The delimiter that each frame begins with ends the noise before it.
            stream += noise + wire.frame(wire.command(bridge.sequence, source.randrange(2000, 4001), 2892))
        sent += 100
        expected = sum(map(wire.known, wire.decode(bytes(stream), wire.LONGEST_TO_BRIDGE).payloads))
        assert expected == 100, "the noise has a frame in it: take another seed"
        bridge.send_raw(bytes(stream))
        bridge.run_ms(len(stream) * 40 // 1000 + 1)
        after = bridge.look()
        assert (after.good - before.good) % 65536 == sent % 65536
        assert after.last_sequence == bridge.sequence % 65536
        assert (after.range_refused, after.sequence_refused, after.state_refused) == (0, 0, 0)
    assert bridge.look().overruns == 0


def test_10_000_frames_in_noise_are_all_accepted_by_the_pure_code(native: Native) -> None:
    frames_in_noise(native, 10_000, random.Random(23))


@pytest.mark.slow
def test_10_000_frames_in_noise_are_all_accepted_by_the_firmware(chip: Lockstep) -> None:
    frames_in_noise(chip, 10_000, random.Random(24))


def fuzz(program: Path, inputs: int, seeds: Sequence[int]) -> list[tuple[int, str, str]]:
    """(exit status, stdout, stderr) of a fuzz for each seed, side by side."""
    runs = [
        subprocess.Popen([program, str(inputs), str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in seeds
    ]
    outputs = [run.communicate(timeout=800) for run in runs]
    return [(run.returncode, *output) for run, output in zip(runs, outputs, strict=True)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_million_inputs_under_sanitizers(firmware: Path) -> None:
    for status, stdout, stderr in fuzz(firmware / "build/fuzz", 1_000_000, (1, 2)):
        assert (status, stderr) == (0, "")
        told = json.loads(stdout)
        assert told["inputs"] == 1_000_000
        assert told["armed"] >= 500_000
        assert all(looks > 10_000 for looks in told["looks"]), "a state was hardly seen"


# What the fuzz has to find within 20,000 inputs: (file, text, the fault in its place, what it says).
FAULTS = [
    ("state.c", "return machine->age_ms < TIMEOUT_MS;", "return machine->age_ms < TIMEOUT_MS + 1;", "after silence"),
    ("state.c", "|| machine->state == ESTOP)\n        return;", ")\n        return;", "emergency stop"),
    ("state.c", "++machine->neutral_frames == NEUTRAL_FRAMES", "++machine->neutral_frames == 4", "without neutral"),
    ("state.c", "        return REFUSED_RANGE;\n    uint16_t ahead", "        {}\n    uint16_t ahead", "out of range"),
    ("state.c", "machine->out.throttle, machine->wanted.throttle, config", "0, machine->wanted.throttle, config", "slew"),
    ("state.c", "if (machine->state == ARMED) /* the", "if (machine->state != UNCONFIGURED) /* the", "while not armed"),
    ("store.c", "} else if (step < RECORD_BYTES) {", "} else if (step < RECORD_BYTES + 1) {", ""),
    ("proto.c", "decoder->length < RX_BYTES)", "decoder->length < RX_BYTES + 1)", "runtime error"),
    ("proto.c", "decoder->length < CRC_BYTES + 1)", "decoder->length < CRC_BYTES - 1)", ""),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}:{fault[3]}")
def test_the_fuzz_finds_seeded_faults(firmware: Path, tmp_path: Path, fault: tuple[str, str, str, str]) -> None:
    file, text, wrong, says = fault
    folder = tmp_path / "firmware"
    # With the objects, and their times: only the changed file is compiled.
    shutil.copytree(FIRMWARE, folder, ignore=shutil.ignore_patterns("coverage", "*.so", "*.elf", "__pycache__"))
    source = (folder / file).read_text()
    assert source.count(text) == 1, "the line has changed"
    (folder / file).write_text(source.replace(text, wrong))
    made = subprocess.run(["make", "-s", "-C", folder, "fuzz"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    ((status, _, stderr),) = fuzz(folder / "build/fuzz", 20_000, (1,))
    assert status != 0
    assert says in stderr
