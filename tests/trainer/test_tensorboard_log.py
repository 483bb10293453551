"""TensorBoard's scalars, read back by TensorBoard's own reader."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from trainer.tensorboard_log import TAGS, TensorboardLog, masked_crc


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """By tag, (step, value) as TensorBoard shows them."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard (pip install tensorboard)"
    )
    found = reader.EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_crc_is_that_of_rfc_3720() -> None:
    # Its test vector: 32 bytes of zeros have CRC-32C 0x8a9136aa; then TFRecord's mask.
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_what_is_written_is_read(tmp_path: Path) -> None:
    log = TensorboardLog(tmp_path)
    for k in range(300):
        log.add({"steps": 2048.0 * k, "reward": k / 3, "loss": -1e-7 * k, "eval_lap_s": math.nan, "kl": 5e9})
    log.close()
    found = scalars(tmp_path)
    assert set(found) == {"episode/reward", "loss/total", "policy/kl"}
    assert len(found["episode/reward"]) == 300
    assert found["episode/reward"][-1] == (2048 * 299, pytest.approx(299 / 3))
    assert found["loss/total"][2][1] == pytest.approx(-2e-7)


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    first = TensorboardLog(tmp_path)
    for step in (100, 200, 300, 400):
        first.add({"steps": step, "reward": 1.0})
    first.close()
    # Killed after 400; its last checkpoint was of 200.
    second = TensorboardLog(tmp_path, from_step=200)
    for step in (300, 500):
        second.add({"steps": step, "reward": 2.0})
    second.close()
    assert scalars(tmp_path)["episode/reward"] == [(100, 1.0), (200, 1.0), (300, 2.0), (500, 2.0)]


def test_a_full_disk_ends_the_log_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    log = TensorboardLog(tmp_path)
    log.add({"steps": 1.0, "reward": 1.0})
    log.close()
    assert "training goes on" in capsys.readouterr().err


def test_every_tag_is_a_column() -> None:
    from trainer.training import COLUMNS

    assert set(TAGS) <= set(COLUMNS) and len(set(TAGS.values())) == len(TAGS)
