"""Fixtures of the console's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from argon2 import PasswordHasher
from flask import Flask

from calibration import auth
from tests.calibration.console_rig import Browser, FakeCar, make_console


@pytest.fixture(autouse=True)
def cheap_hashes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but its own tests wants to wait for the hash of a password."""
    if request.path.name != "test_auth.py":
        monkeypatch.setattr(auth, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def made(tmp_path: Path) -> tuple[Flask, FakeCar, str]:
    return make_console(tmp_path)


@pytest.fixture
def app(made: tuple[Flask, FakeCar, str]) -> Flask:
    return made[0]


@pytest.fixture
def car(made: tuple[Flask, FakeCar, str]) -> FakeCar:
    return made[1]


@pytest.fixture
def password(made: tuple[Flask, FakeCar, str]) -> str:
    return made[2]


@pytest.fixture
def browser(app: Flask, password: str) -> Browser:
    """Logged in."""
    made = Browser(app)
    assert made.log_in(password).status_code == 200
    return made
