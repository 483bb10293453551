"""`hotlap flash` against a real console over TLS: sent, resumed, refused, pinned."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import ssl
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from calibration.tls import self_signed
from tests.vehicle.console_car import ConsoleCar, Https
from tests.vehicle.gate_process import until
from tests.vehicle.pilot_rig import make_bundle
from vehicle import flash, flash_client
from vehicle.bundle import BundleError
from vehicle.errors import VehicleError
from vehicle.flash_client import CarDistrusted, CarUnreachable, Pins, parse_car
from vehicle.options import flash_options

pytestmark = pytest.mark.slow  # real processes in real time

Run = Callable[..., int]


@pytest.fixture(scope="module")
def car() -> Iterator[ConsoleCar]:
    with tempfile.TemporaryDirectory(prefix="hl", ignore_cleanup_errors=True) as name:
        made = ConsoleCar(Path(name))
        yield made
        made.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "oval.tar.gz").path


@pytest.fixture
def run(car: ConsoleCar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOTLAP_PASSWORD", car.password)
    monkeypatch.setattr(flash, "PIECE_BYTES", 700)
    monkeypatch.setattr(flash, "PAUSE_S", 0.01)

    def flash_it(path: Path, *words: str, to: str = "") -> int:
        parser = argparse.ArgumentParser()
        flash_options(parser)
        parser.add_argument("--json", action="store_true")
        return flash.flash(parser.parse_args([str(path), "--car", to or car.address, *words]))

    return flash_it


def models(car: ConsoleCar) -> dict[str, Any]:
    return {row["sha256"]: row for row in car.console.link.models()["models"]}


def forget(car: ConsoleCar) -> None:
    """No model is on the car any more but the one on trial."""
    for sha256, row in models(car).items():
        if not row["role"]:
            car.console.link.remove(sha256)


def test_a_model_is_sent_verified_and_chosen(
    car: ConsoleCar, bundle: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle) == 0
    text = capsys.readouterr()
    sha256 = hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert f"model {sha256[:12]} is on the car" in text.out and "golden vectors" in text.out
    assert "met for the first time" in text.err
    row = models(car)[sha256]
    assert (row["name"], row["role"]) == ("oval", "")
    assert run(bundle, "--activate", "--json", "--name", "fast one") == 0
    text = capsys.readouterr()
    done = json.loads(text.out)
    assert {key: done[key] for key in ("ok", "sha256", "new", "name", "activated", "loaded", "trial")} == {
        "ok": True, "sha256": sha256, "new": False, "name": "fast one", "activated": True, "loaded": True,
        "trial": True,
    }  # fmt: skip
    assert done["report"]["p99_ms"] > 0.0 and done["certificate_sha256"] == car.console.fingerprint
    assert "as before" in text.err
    assert {"op": "reload"} in car.sockets.asked
    sessions = car.console.console.sessions._sessions
    assert len(sessions) == 0  # it logs out


def test_a_pilot_that_does_not_load_it_is_a_failure_that_is_said(
    car: ConsoleCar, bundle: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    good = dict(car.sockets.answers["reload"])
    car.sockets.answers["reload"] = {"ok": False, "reason": "x", "what": "the camera is gone"}
    try:
        assert run(bundle, "--activate") == 1
    finally:
        car.sockets.answers["reload"] = good
    assert "the camera is gone" in capsys.readouterr().out


def test_it_goes_on_after_the_connection_was_lost(
    car: ConsoleCar, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(car)
    path = make_bundle(tmp_path / "other.tar.gz", first=7).path
    sent: list[int] = []
    ask = flash_client.CarClient.ask

    def shaky(client: Any, method: str, path: str, values: Any = None, **headers: str) -> dict[str, Any]:
        if method == "PATCH":
            sent.append(int(headers["Upload-Offset"]))
            if len(sent) in (2, 3, 5):
                client._connection.sock.shutdown(2)
        return ask(client, method, path, values, **headers)

    monkeypatch.setattr(flash_client.CarClient, "ask", shaky)
    assert run(path) == 0
    assert hashlib.sha256(path.read_bytes()).hexdigest() in models(car)
    assert sent == sorted(sent) and len(sent) > len(set(sent))


def test_an_earlier_upload_is_gone_on_with(
    car: ConsoleCar, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(car)
    path = make_bundle(tmp_path / "third.tar.gz", first=3).path
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    browser = Https(car.port).log_in(car.password)
    assert browser.ask("POST", "/api/v1/uploads", {"size": len(data), "sha256": sha256})[0] == 201
    assert browser.ask("PATCH", f"/api/v1/uploads/{sha256}", data[:1000], {"Upload-Offset": "0"})[0] == 200
    browser.close()
    assert run(path) == 0
    assert "going on at" in capsys.readouterr().err


def test_an_armed_car_refuses(car: ConsoleCar, bundle: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    browser = Https(car.port).log_in(car.password)
    car.drive_ready()
    try:
        assert until(lambda: browser.ask("POST", "/api/v1/arm", {})[0] == 200)
        assert until(lambda: car.console.link.state()["armed"])
        assert run(bundle, "--json") == 1
        assert json.loads(capsys.readouterr().out)["error"]["reason"] == "armed"
        assert run(bundle) == 1
        assert "the car refused (armed)" in capsys.readouterr().out
    finally:
        browser.post("/api/v1/disarm")
        browser.close()
        assert car.pilot is not None
        car.pilot.close()


def test_the_cars_verdict_against_a_bundle_is_shown(
    car: ConsoleCar, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle whose vectors another graph made: only the car, which replays them, finds out."""
    good, other = make_bundle(tmp_path / "a.tar.gz"), make_bundle(tmp_path / "b.tar.gz", first=9)
    with tarfile.open(good.path) as ours, tarfile.open(other.path) as theirs:
        members = {name: ours.extractfile(name).read() for name in ours.getnames()}  # type: ignore[union-attr]
        members["golden.npz"] = theirs.extractfile("golden.npz").read()  # type: ignore[union-attr]
    contract = json.loads(members["contract.json"])
    contract["files"]["golden.npz"] = hashlib.sha256(members["golden.npz"]).hexdigest()
    members["contract.json"] = json.dumps(contract).encode()
    bad = tmp_path / "bad.tar.gz"
    with tarfile.open(bad, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    before = set(models(car))
    assert run(bad, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["error"]["reason"]) == (False, "golden_mismatch") and said["error"]["next"]
    assert set(models(car)) == before


def test_a_deepracer_model_is_recognised_before_it_is_sent(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "deepracer.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("agent/model.pb", "model_metadata.json"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"data"))
    with pytest.raises(BundleError) as caught:
        run(path)
    assert caught.value.fault == "foreign"
    assert "DeepRacer" in caught.value.what and "hotlap train --action-space" in caught.value.next_step


@pytest.mark.parametrize("data", (b"", b"nonsense"))
def test_what_is_no_bundle_is_not_sent(run: Run, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar.gz").write_bytes(data)
    for name in ("x.tar.gz", "none.tar.gz"):
        with pytest.raises(BundleError):
            run(tmp_path / name)


def test_a_wrong_password_is_refused(
    car: ConsoleCar, bundle: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "password").write_text("wrong\n")
    assert run(bundle, "--password-file", str(tmp_path / "password"), "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "wrong_password"
    (tmp_path / "password").write_text(car.password + "\n")
    assert run(bundle, "--password-file", str(tmp_path / "password")) == 0
    with pytest.raises(VehicleError):
        run(bundle, "--password-file", str(tmp_path / "none"))


def test_without_anybody_to_ask_it_says_how_to_give_the_password(
    bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOTLAP_PASSWORD")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(VehicleError, match="nobody to ask"):
        run(bundle)


# --- whom it talks to


def test_another_certificate_than_before_gets_no_password(
    car: ConsoleCar, bundle: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = Pins()
    assert str(pins.path) == str(tmp_path / "config" / "hotlap" / "cars.json")
    pins.set(car.address, "5a" * 32)
    asked: list[str] = []
    monkeypatch.setattr(flash_client.CarClient, "log_in", lambda self, password: asked.append(password))
    with pytest.raises(CarDistrusted) as caught:
        run(bundle)
    assert "--trust-new" in caught.value.next_step and asked == []
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOTLAP_PASSWORD", car.password)
    assert run(bundle, "--insecure") == 0
    assert Pins().get(car.address) == "5a" * 32
    assert run(bundle, "--trust-new") == 0
    assert Pins().get(car.address) == car.console.fingerprint
    assert run(bundle) == 0


def test_a_car_that_changes_its_certificate_on_the_way_is_not_talked_to(
    car: ConsoleCar, bundle: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(car)
    path = make_bundle(tmp_path / "fourth.tar.gz", first=5).path
    ask = flash_client.CarClient.ask

    def intercepted(client: Any, method: str, path: str, values: Any = None, **headers: str) -> dict[str, Any]:
        if method == "PATCH":
            Pins().set(car.address, "00" * 32)
            client._connection.sock.shutdown(2)
        return ask(client, method, path, values, **headers)

    monkeypatch.setattr(flash_client.CarClient, "ask", intercepted)
    with pytest.raises(CarDistrusted):
        run(path)


@pytest.mark.parametrize("text", ("", "{", "[]", "\xff"))
def test_damaged_pins_trust_nobody(run: Run, bundle: Path, text: str) -> None:
    path = Pins().path
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(VehicleError):
        run(bundle)


def test_nobody_there_is_said(run: Run, bundle: Path) -> None:
    with pytest.raises(CarUnreachable) as caught:
        run(bundle, to="127.0.0.1:1")
    assert "hotlap console" in caught.value.next_step


def test_what_is_no_console_is_said(run: Run, bundle: Path, tmp_path: Path) -> None:
    from calibration.server import ConsoleServer, redirecting

    key, certificate = self_signed(["localhost"])
    (tmp_path / "both.pem").write_bytes(key + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    server = ConsoleServer(redirecting(1), "127.0.0.1", 0, tls=context, threads=1)
    server.run("test-https")
    try:
        with pytest.raises(CarUnreachable, match="no hotlap console"):
            run(bundle, to=f"127.0.0.1:{server.port}")
    finally:
        server.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    (
        ("hotlap.local", ("hotlap.local", (443, 8443))), ("https://10.0.0.7:8443/", ("10.0.0.7", (8443,))),
        ("10.0.0.7:9", ("10.0.0.7", (9,))), ("[fe80::1]:9", ("fe80::1", (9,))), ("", None), ("http://car", None),
        ("car:x", None), ("https://a:b@car", None), ("https://car/x", None), ("car:99999", None), ("https://[", None),
    ),
)  # fmt: skip
def test_addresses(text: str, expected: tuple[str, tuple[int, ...]] | None) -> None:
    if expected is None:
        with pytest.raises(VehicleError):
            parse_car(text)
    else:
        assert parse_car(text) == expected


def test_a_local_name_is_asked_for_by_multicast_where_nobody_else_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object) -> None:
        raise OSError("name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr(flash_client, "resolve", lambda host: "10.0.0.7" if host == "hotlap.local" else None)
    assert flash_client._address_of("hotlap.local") == "10.0.0.7"
    assert flash_client._address_of("other.local") == "other.local"
    assert flash_client._address_of("example.org") == "example.org"
