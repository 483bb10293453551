"""Flashing: what is looked at before avrdude runs, the command line, and avrdude's failures in words."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import flash as flash_module
from firmware_bridge.errors import BridgeError, LinkError
from firmware_bridge.flash import FlashError, Image, avrdude_command, flash, port_to_flash, read_image
from firmware_bridge.link import open_link
from tests.firmware_bridge.model_bridge import ModelBoard

END = ":00000001FF"


def record(address: int, data: bytes, kind: int = 0) -> str:
    body = bytes([len(data)]) + address.to_bytes(2, "big") + bytes([kind]) + data
    return ":" + (body + bytes([-sum(body) & 0xFF])).hex().upper()


def hex_file(folder: Path, *lines: str) -> Path:
    path = folder / "bridge.hex"
    path.write_text("\r\n".join(lines) + "\r\n")
    return path


@given(st.binary(min_size=1, max_size=600))
def test_a_whole_program_is_measured(tmp_path_factory: pytest.TempPathFactory, program: bytes) -> None:
    rows = [record(at, program[at : at + 16]) for at in range(0, len(program), 16)]
    path = hex_file(tmp_path_factory.mktemp("hex"), *rows, END)
    assert read_image(path) == Image(path, len(program))


def test_the_real_one(root: Path) -> None:
    path = root / "firmware_bridge" / "firmware" / "build" / "bridge.hex"
    if not path.exists():
        pytest.skip("the firmware has not been built")
    assert 1000 < read_image().size < 16384
    assert read_image().path == path


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([record(0, b"ab")], "end record is missing"),
        ([record(0, b"ab")[:-1] + "0", END], "wrong checksum"),
        ([record(0, b"ab")[:-2], END], "wrong checksum"),
        (["hello", END], "no record"),
        ([":zz", END], "no record"),
        ([record(0, b"ab"), END, record(2, b"cd")], "after the end"),
        ([record(0, b"ab", kind=9), END], "type 9"),
        ([END], "0 bytes from"),
        ([record(2, b"ab"), END], "no program"),
        ([record(0, b"ab"), record(0x7E00, b"x"), END], "no program"),
        ([record(0, b"ab"), record(0, b"\x00\x01", kind=4), record(0, b"x"), END], "no program"),
        ([record(0, b"ab"), record(0, b"\x10\x00", kind=2), record(0, b"x"), END], "no program"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, lines: list[str], why: str) -> None:
    with pytest.raises(FlashError, match=why) as caught:
        read_image(hex_file(tmp_path, *lines))
    assert caught.value.next_step


def test_the_last_byte_before_the_bootloader_is_free(tmp_path: Path) -> None:
    path = hex_file(tmp_path, record(0, b"a"), record(0x7DFF, b"x"), END)
    assert read_image(path).size == 2


def test_a_file_that_is_not_there_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FlashError, match="is not there") as caught:
        read_image(tmp_path / "bridge.hex")
    assert "make -C firmware_bridge/firmware" in caught.value.next_step
    monkeypatch.setattr(flash_module, "HEX", tmp_path / "other.hex")
    with pytest.raises(FlashError, match=r"other\.hex"):
        read_image()
    (tmp_path / "binary.hex").write_bytes(b"\xff\xfe")
    with pytest.raises(FlashError, match="cannot be read"):
        read_image(tmp_path / "binary.hex")


def test_the_command_line(tmp_path: Path) -> None:
    image = Image(tmp_path / "bridge.hex", 5)
    assert avrdude_command("avrdude", "/dev/ttyUSB0", image, baud=115200, programmer="arduino") == [
        "avrdude", "-p", "atmega328p", "-c", "arduino", "-P", "/dev/ttyUSB0", "-b", "115200", "-D",
        "-U", f"flash:w:{tmp_path}/bridge.hex:i",
    ]  # fmt: skip
    # An ISP programmer erases the chip, bootloader and all, and has no baud rate.
    assert avrdude_command("avrdude", "", image, baud=115200, programmer="usbasp") == [
        "avrdude", "-p", "atmega328p", "-c", "usbasp", "-U", f"flash:w:{tmp_path}/bridge.hex:i",
    ]  # fmt: skip


@pytest.fixture
def avrdude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called avrdude on the PATH, that does what the file "does" beside it says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "avrdude"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(folder / 'args')!r}, 'w').write(' '.join(sys.argv[1:]))\n"
        f"exec(open({str(folder / 'does')!r}).read())\n"
    )
    program.chmod(0o755)
    (folder / "does").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return read_image(hex_file(tmp_path, record(0, b"ab"), END))


def test_it_runs_avrdude(avrdude: Path, board: ModelBoard, image: Image) -> None:
    flash(board.path, image)
    assert (avrdude / "args").read_text() == (
        f"-p atmega328p -c arduino -P {board.path} -b 115200 -D -U flash:w:{image.path}:i"
    )


@pytest.mark.parametrize(
    ("words", "cause", "cure"),
    [
        ("avrdude: stk500_getsync() attempt 10 of 10: not in sync: resp=0x00", "no bootloader answers", "--baud 57600"),
        ("avrdude error: programmer is not responding", "no bootloader answers", "--baud 57600"),
        ("avrdude: Device signature = 0x1e9514\navrdude error: signature mismatch", "another chip", "Nano or Uno"),
        ("avrdude: verification error, first mismatch at byte 0x0000", "weak supply", "try again"),
        ("avrdude error: cannot open port /dev/x: Permission denied", "dialout", "usermod"),
        ("avrdude error: cannot find USB device with vid=0x16c0", "not plugged in", "lsusb"),
        ("the cat sat", "its own words", "hotlap bridge find"),
        ("", "its own words", "hotlap bridge find"),
    ],
)
def test_its_failures_are_explained(
    avrdude: Path, board: ModelBoard, image: Image, words: str, cause: str, cure: str
) -> None:
    (avrdude / "does").write_text(f"sys.stderr.write({words!r}); sys.exit(1)")
    with pytest.raises(FlashError, match="avrdude failed with status 1") as caught:
        flash(board.path, image)
    assert cause in caught.value.cause and cure in caught.value.next_step


def test_a_hanging_avrdude_is_ended(
    avrdude: Path, board: ModelBoard, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    (avrdude / "does").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(flash_module, "TIMEOUT_S", 0.5)
    with pytest.raises(FlashError, match="did not end"):
        flash(board.path, image)


def test_a_port_that_the_gate_has_open_is_left_alone(avrdude: Path, board: ModelBoard, image: Image) -> None:
    link = open_link(board.path)
    try:
        with pytest.raises(LinkError, match="in use"):
            flash(board.path, image)
        assert not (avrdude / "args").exists()
    finally:
        link.close()


def test_without_avrdude(board: ModelBoard, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FlashError, match="avrdude is not installed") as caught:
        flash(board.path, image)
    assert caught.value.next_step == "sudo apt-get install avrdude"
    assert isinstance(caught.value, BridgeError)


def test_the_port_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    ports: list[str] = []
    monkeypatch.setattr(flash_module, "usb_ports", lambda: ports)
    hellos = {"/dev/b": object()}
    monkeypatch.setattr(
        flash_module, "find_bridges",
        lambda asked: [SimpleNamespace(port=port, hello=hellos.get(port)) for port in asked],
    )  # fmt: skip
    assert port_to_flash("/dev/x") == "/dev/x"
    with pytest.raises(LinkError, match="0 serial ports"):
        port_to_flash()
    ports.append("/dev/a")
    assert port_to_flash() == "/dev/a"  # the only one: perhaps an empty board
    ports.append("/dev/b")
    assert port_to_flash() == "/dev/b"  # the one that is a bridge
    hellos.clear()
    with pytest.raises(LinkError, match="2 serial ports on USB: /dev/a, /dev/b") as caught:
        port_to_flash()
    assert "--port" in caught.value.next_step
