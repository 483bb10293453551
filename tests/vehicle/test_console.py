"""The console over real TLS in front of a real gate: its server, its process, and DeepRacer's clients, unmodified."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from calibration.server import ConsoleServer, redirecting
from calibration.tls import CertificateError, ensure_certificate, fingerprint, server_context
from tests.vehicle.console_car import ConsoleCar, Https, raw, unverified
from tests.vehicle.cut import Wifi
from tests.vehicle.gate_process import MODEL, NEUTRAL_US, FakePilot, GateProcess, until
from tests.vehicle.pilot_rig import make_bundle
from vehicle.console import _ports, main
from vehicle.links import console_url
from vehicle.mdns import Announcement, host_name, resolve
from vehicle.parent import ENVIRONMENT

pytestmark = pytest.mark.slow  # real processes in real time

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "b.tar.gz").path


@pytest.fixture
def car() -> Iterator[ConsoleCar]:
    with tempfile.TemporaryDirectory(prefix="hl", ignore_cleanup_errors=True) as name:
        made = ConsoleCar(Path(name))
        yield made
        made.close()


@pytest.fixture
def browser(car: ConsoleCar) -> Iterator[Https]:
    made = Https(car.port).log_in(car.password)
    yield made
    made.close()


COMMANDS = {
    "manual": ("manual", {"steering": 0.0, "throttle": 0.8}),
    "calibration": ("pulse", {"throttle_us": NEUTRAL_US - 20.0}),
}


def drive(browser: Https, car: ConsoleCar, seconds: float = 0.6, mode: str = "manual") -> float:
    """Take the controls and go ahead for so long; when the last command was answered.

    A machine under load may be too slow for a lease of 0.25 s: then it begins again.
    """
    path, values = COMMANDS[mode]
    for _ in range(5):
        assert until(lambda: not {"esc_neutral", "guard"} & car.gate.reasons())
        status, found, _ = browser.ask("POST", "/api/v1/lease", {"kind": mode})
        lease = found.get("lease", "")
        status, *_ = browser.ask("POST", "/api/v1/arm", {"mode": mode, "lease": lease})
        end_s = time.monotonic() + seconds
        while status == 200 and time.monotonic() < end_s:
            time.sleep(0.05)
            status, *_ = browser.ask("POST", f"/api/v1/{path}", {"lease": lease, **values})
            last_s = time.monotonic()
        if status == 200 and car.gate.moving_after(last_s - 0.1):
            return last_s
        time.sleep(0.4)
    raise AssertionError("this machine is too slow to drive by hand")


# --- losing the browser, from the pulse train


def after_last_motion_s(car: ConsoleCar, last_s: float) -> float:
    """Seconds from then to the first neutral pulse; nothing moves afterwards, for a second."""
    neutral = car.gate.neutral_after(last_s, 60)
    assert car.gate.moving_after(neutral[0].t_s) == []
    return neutral[0].t_s - last_s


@pytest.mark.parametrize("mode", COMMANDS)
@pytest.mark.parametrize("how", ("silent", "closed", "reset", "cut"))
def test_a_browser_that_is_lost_is_neutral_within_300_ms(car: ConsoleCar, how: str, mode: str) -> None:
    """The same with a real browser that is killed, asleep or cut off: tests/browser/test_lost.py."""
    with contextlib.closing(Wifi(car.port)) as wifi, contextlib.closing(Https(wifi.port)) as browser:
        browser.log_in(car.password)
        last_s = drive(browser, car, mode=mode)
        if how == "closed":  # the tab was closed
            browser.close()
        elif how == "reset":
            linger = bytes([1, 0, 0, 0, 0, 0, 0, 0])
            browser.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            browser.connection.sock.detach()
        elif how == "cut":  # with a command on its way, which comes seconds later
            late = {"lease": browser.lease, **COMMANDS[mode][1]}
            wifi.cut()
            browser.connection.request("POST", f"/api/v1/{COMMANDS[mode][0]}", json.dumps(late).encode(), {
                "Cookie": "; ".join(f"{k}={v}" for k, v in browser.cookies.items()), "X-CSRFToken": browser.token,
            })  # fmt: skip
        assert after_last_motion_s(car, last_s) <= 0.300
        status = car.gate.status()
        assert (status["mode"], status["fault"]["name"]) == ("disarmed", "lease_lost")
        if how == "cut":
            healed_s = time.monotonic()
            wifi.heal()
            assert browser.connection.getresponse().status == 409
            assert car.gate.neutral_after(healed_s, 20) and car.gate.moving_after(healed_s) == []


def test_a_console_that_is_lost_is_neutral_within_300_ms_too(car: ConsoleCar, browser: Https) -> None:
    last_s = drive(browser, car)
    car.console.close()
    assert after_last_motion_s(car, last_s) <= 0.300


def test_an_autonomous_car_drives_on_without_its_console(car: ConsoleCar, browser: Https) -> None:
    car.drive_ready()
    assert until(lambda: browser.ask("POST", "/api/v1/arm", {})[0] == 200)
    car.console.close()
    since_s = time.monotonic()
    time.sleep(0.5)
    assert len(car.gate.moving_after(since_s)) > 10
    assert car.gate.status()["mode"] == "autonomous"


def test_where_car_toml_has_it_so_an_autonomous_car_stops_without_its_console(short: Path) -> None:
    """The gate sees to it, by the console's sign of life; a console that only hangs gives none either."""
    folder = short / "gate"
    folder.mkdir()
    gate = GateProcess(folder)
    gate.config.write_text(gate.config.read_text() + '[drive]\nwithout_console = "stop"\n')
    gate.start().wait_answer()
    process: subprocess.Popen[str] | None = None
    try:
        gate.pilot = FakePilot(gate.runtime)
        assert gate.ask("model", sha256=MODEL, trial=False)["ok"]
        assert until(lambda: gate.reasons() == {"disarmed", "no_console"}), gate.reasons()
        assert gate.ask("arm", mode="autonomous")["reason"] == "blocked"
        for number in (signal.SIGKILL, signal.SIGSTOP):
            process = start(folder)
            assert until(lambda: gate.ask("arm", mode="autonomous")["ok"], 60.0), gate.reasons()
            assert until(lambda: gate.throttle()[-1].cause == "drive")
            os.kill(process.pid, number)
            gone_s = time.monotonic()
            assert until(lambda: gate.status()["mode"] == "disarmed")
            fault = gate.status()["fault"]
            assert fault["name"] == "console_lost"
            last_s = max(row.t_s for row in gate.throttle() if row.cause == "drive")
            assert last_s - gone_s < 2.1  # the last sign of life was before that
            process.kill()
            process.communicate()
            process = None
        assert gate.moving_after(last_s + 0.001) == []
    finally:
        if process is not None:
            process.kill()
            process.communicate()
        gate.close()


# --- the server


def test_silent_and_half_open_connections_hold_up_nobody(car: ConsoleCar, browser: Https) -> None:
    """cheroot alone would shake hands with each of them, one after the other, for ten seconds."""
    opened = [socket.create_connection(("127.0.0.1", car.port)) for _ in range(40)]
    try:
        for silent in opened[:20]:
            silent.sendall(b"\x16\x03\x01\x02")  # the beginning of a ClientHello
        for nonsense in opened[20:25]:
            nonsense.sendall(b"GET / HTTP/1.1\r\n\r\n")  # no TLS at all
        begun_s = time.monotonic()
        browser.post("/api/v1/stop")
        with contextlib.closing(Https(car.port)) as other:
            assert other.ask("GET", "/auth")[0] == 401
        assert time.monotonic() - begun_s < 3.0
    finally:
        for one in opened:
            one.close()


def test_a_request_that_trickles_in_is_cut_off(car: ConsoleCar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.server.REQUEST_S", 0.5)
    with unverified().wrap_socket(socket.create_connection(("127.0.0.1", car.port))) as slow:
        slow.settimeout(5.0)
        begun_s = time.monotonic()
        with contextlib.suppress(OSError):
            slow.sendall(b"GET / HTTP/1.1\r\n")
            while time.monotonic() - begun_s < 10.0:
                slow.sendall(b"X: y\r\n")
                time.sleep(0.05)
        assert time.monotonic() - begun_s < 5.0


NONSENSE = (
    (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20000 + b"\r\n\r\n", (413, 431)),
    (b"GET /" + b"y" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (414,)),
    (b"POST /api/v1/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n", (413,)),
    (b"POST /api/v1/stop HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", (200, 400)),
    (b"POST /api/v1/stop HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", (400,)),
    (b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n", (411,)),
    (b"NONSENSE\r\n\r\n", (400,)),
    (b"GET / HTTP/9.9\r\n\r\n", (400, 505)),
    (b"\r\n\r\n\r\n", (400,)),
    (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    (b"GET /%00%0d%0aX:y HTTP/1.1\r\nHost: x\r\n\r\n", (400, 401)),
    (b"GET / HTTP/1.1\r\nHost: x\r\nCookie: session=\xff\xfe; deepracer_token=\x00\r\n\r\n", (200, 400)),
    (b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", (200, 400)),
    (b"GET / HTTP/1.1\r\nHost: [::\r\n\r\n", (200, 400)),
    (b"GET / HTTP/1.1\r\n folded\r\nHost: x\r\n\r\n", (400,)),
    (b"POST /login HTTP/1.1\r\nHost: [\r\nOrigin: https://[\r\nContent-Length: 0\r\n\r\n", (400, 403)),
)


def test_nonsense_on_the_wire_gets_no_500(car: ConsoleCar) -> None:
    for request, statuses in NONSENSE:
        answer = raw(car.port, request, timeout_s=1.0)
        seen = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]
        assert len(seen) == 1 and seen[0] in statuses, (request[:80], answer[:300])
    with contextlib.closing(Https(car.port)) as other:
        assert other.ask("GET", "/auth")[0] == 401


def test_a_refused_body_is_not_read_as_the_next_request(car: ConsoleCar) -> None:
    smuggled = b"GET /auth HTTP/1.1\r\nHost: x\r\n\r\n"
    for head in (b"Content-Length: 3000000\r\n", b"Transfer-Encoding: chunked\r\n"):
        answer = raw(car.port, b"POST /api/v1/stop HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n" + smuggled * 3)
        assert answer.count(b"HTTP/1.1 ") <= 1


def test_http_leads_to_https(car: ConsoleCar) -> None:
    server = ConsoleServer(redirecting(8443), "127.0.0.1", 0, tls=None, threads=1)
    server.run("test-http")
    try:
        for host, path, location in (
            ("car.local", "/models", "https://car.local:8443/models"), ("10.0.0.7:8080", "/", "https://10.0.0.7:8443/"),
            ("[fe80::1]:8080", "//evil.example/", "https://[fe80::1]:8443/evil.example/"), ("", "/", None),
            ("evil example", "/", None), ("a", "/x%0d%0aSet-Cookie:y=z", "https://a:8443/xSet-Cookieyz"),
            ("a:b@evil.example", "/", "https://a:8443/"), ("x" * 300, "/", None),
        ):  # fmt: skip
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.settimeout(5.0)
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                answer = connection.makefile("rb").read().decode()
            found = re.search(r"^Location: (.*)\r$", answer, re.MULTILINE)
            assert (found and found[1]) == location, answer
            assert answer.startswith("HTTP/1.1 302" if location else "HTTP/1.1 400")
    finally:
        server.close()
    assert (
        redirecting(443)({"HTTP_HOST": "car", "PATH_INFO": "/"}, lambda *_: None)[0].strip().endswith(b"https://car/")
    )


def test_a_viewer_that_reads_nothing_is_dropped_and_slows_nobody(car: ConsoleCar, browser: Https) -> None:
    cookies = "; ".join(f"{k}={v}" for k, v in browser.cookies.items())
    request = f"GET /route HTTP/1.1\r\nHost: x\r\nCookie: {cookies}\r\n\r\n".encode()
    deaf = unverified().wrap_socket(socket.create_connection(("127.0.0.1", car.port)))
    try:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(request)
        with unverified().wrap_socket(socket.create_connection(("127.0.0.1", car.port))) as viewer:
            viewer.settimeout(5.0)
            viewer.sendall(request)
            seen, begun_s = b"", time.monotonic()
            while seen.count(b"\xff\xd8") < 15:
                seen += viewer.recv(65536)
            assert time.monotonic() - begun_s < 5.0
        assert b"multipart/x-mixed-replace;boundary=boundarydonotcross" in seen
        assert until(lambda: car.console.console.video._slots.taken <= 1)
    finally:
        deaf.close()
    assert until(lambda: car.console.console.video._slots.taken == 0)


def test_events_come_over_tls_five_times_a_second(car: ConsoleCar, browser: Https) -> None:
    cookies = "; ".join(f"{k}={v}" for k, v in browser.cookies.items())
    with unverified().wrap_socket(socket.create_connection(("127.0.0.1", car.port))) as stream:
        stream.settimeout(5.0)
        stream.sendall(f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nCookie: {cookies}\r\n\r\n".encode())
        text, begun_s = b"", time.monotonic()
        while text.count(b"data: ") < 6:
            text += stream.recv(65536)
        assert 0.8 < time.monotonic() - begun_s < 4.0
    (event, *_) = re.findall(rb"data: (\{.*?\})\n\n", text)
    assert json.loads(event)["mode"] == "disarmed"


# --- the certificate


def test_the_certificate_is_made_once_for_these_names_and_replaceable(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    certificate, key = ensure_certificate(folder, ["car.local", "10.0.0.7", "fe80::1"])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = fingerprint(certificate)
    ensure_certificate(folder, ["other.local"])
    assert fingerprint(certificate) == before
    client = ssl.create_default_context(cafile=str(certificate))  # whoever trusts it finds nothing wrong with it
    server = ConsoleServer(redirecting(1), "127.0.0.1", 0, tls=server_context(certificate, key), threads=1)
    server.run("test-https")
    try:
        for name in ("car.local", "10.0.0.7"):
            with socket.create_connection(("127.0.0.1", server.port)) as plain:
                client.wrap_socket(plain, server_hostname=name).close()
        with socket.create_connection(("127.0.0.1", server.port)) as plain, pytest.raises(ssl.SSLCertVerificationError):
            client.wrap_socket(plain, server_hostname="evil.example")
    finally:
        server.close()


@pytest.mark.parametrize("damage", ("no key", "other key", "nonsense"))
def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, damage: str) -> None:
    certificate, key = ensure_certificate(tmp_path, ["a"])
    if damage == "no key":
        key.unlink()
    elif damage == "other key":
        _, other = ensure_certificate(tmp_path / "other", ["a"])
        key.write_bytes(other.read_bytes())
    else:
        certificate.write_text("nonsense")
    with pytest.raises(CertificateError):
        server_context(*ensure_certificate(tmp_path, ["a"]))
    key.unlink(missing_ok=True)
    if damage == "no key":
        certificate.unlink()
        assert ensure_certificate(tmp_path, ["a"])[0].exists()


# --- DeepRacer's clients, unmodified


@pytest.fixture
def quiet() -> Iterator[None]:
    """The clients set up logging for everybody when they are imported, and do not close what they open."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    root.handlers, root.level = handlers, level


# Not in the dev extra: its wheel brings a top-level package `tests`, which would hide ours from whoever imports it.
BESIDE = {"deepracer_vehicle_api": "deepracer-vehicle-api==0.0.10"}


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with those clients; what they need, the others have brought."""
    folder = tmp_path_factory.mktemp("clients")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    done = subprocess.run(
        [*pip, "--target", str(folder), *BESIDE.values()], capture_output=True, text=True, timeout=200
    )
    if done.returncode != 0:
        pytest.skip(f"the client cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    return folder


def client_module(name: str, clients: Path | None) -> Any:
    """An installed client, or one of the folder, which is not put on the path."""
    if clients is None:
        return pytest.importorskip(name, reason=f"the DeepRacer client {name} is not installed (extra dev)")
    if name not in sys.modules:
        package = clients / name
        spec = importlib.util.spec_from_file_location(
            name, package / "__init__.py", submodule_search_locations=[str(package)]
        )
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def client_of(module: str, car: ConsoleCar, clients: Path | None = None) -> Any:
    found = client_module(module, clients)
    made = found.Client(car.password, ip=car.address)
    made.session.trust_env = False
    return made


def drives_forward(car: ConsoleCar, move: Callable[[], object]) -> None:
    """Command after command, until the newest pulses say so: a machine under load may be late with some of them."""

    def driven() -> bool:
        move()
        return any(row.cause == "manual" and row.pulse_us < NEUTRAL_US for row in car.gate.throttle()[-3:])

    assert until(driven)


def jpegs(response: Any, count: int) -> list[bytes]:
    """As the clients' own examples parse the stream: from SOI to EOI."""
    found, data = [], b""
    for piece in response.iter_content(chunk_size=1024):
        data += piece
        begin, end = data.find(b"\xff\xd8"), data.find(b"\xff\xd9")
        if begin >= 0 and end > begin:
            found.append(data[begin : end + 2])
            data = data[end + 2 :]
        if len(found) == count:
            break
    response.close()
    return found


@pytest.mark.usefixtures("quiet")
def test_the_client_awsdeepracer_control_0_2_0_does_all_it_can(car: ConsoleCar, bundle: Path) -> None:
    client = client_of("awsdeepracer_control", car)
    client.show_vehicle_info()
    assert client.get_battery_status() == "Vehicle battery not connected"
    assert client.get_is_usb_connected()["success"] is True
    assert set(client.get_network_details()) >= {"SSID", "ip_address", "success"}
    assert client.get_models()["models"] == []
    assert client.get_uploaded_models() == []

    # video, in other sizes than it asks for
    frames = jpegs(client.get_raw_video_stream(), 3)
    assert len(frames) == 3 and all(len(frame) > 500 for frame in frames)

    # calibration
    angle = client.get_calibration_angle()
    assert (angle["mid"], angle["min"], angle["max"], angle["polarity"]) == (-5.0, -30.0, 20.0, 1)
    client.set_calibration_mode()
    assert car.gate.status()["mode"] == "calibration"
    client.set_calibration_angle({"mid": -4, "min": -30, "max": 20, "polarity": 1})
    assert until(lambda: car.gate.status()["pulses"]["steering_us"] == 1460.0)
    throttle = client.get_calibration_throttle()
    client.set_calibration_throttle({key: throttle[key] for key in ("mid", "min", "max", "polarity")})
    api_error = sys.modules["awsdeepracer_control.awsdeepracer_control"].DeepracerVehicleApiError
    with pytest.raises(api_error, match="ascending"):
        client.set_calibration_angle({"mid": 40, "min": -30, "max": 20, "polarity": 1})

    # by hand
    client.set_manual_mode()
    client.start_car()
    drives_forward(car, lambda: client.move(0.5, -0.9, 1.0))
    last_s = time.monotonic()
    assert after_last_motion_s(car, last_s) <= 0.300  # its silence stops the car
    client.move(0.0, -0.9, 1.0)
    client.stop_car()
    with pytest.raises(api_error, match="not started"):
        client.move(0.0, -0.9, 1.0)

    # by itself
    car.drive_ready()
    client.set_autonomous_mode()
    client.set_throttle_percent(50)
    client.start_car()
    status = car.gate.status()
    assert (status["mode"], status["cap_percent"]) == ("autonomous", 50.0)
    client.stop_car()
    assert car.gate.status()["mode"] == "disarmed"

    # models; after an upload its headers keep the upload's content type, and the console reads JSON all the same
    answer = client.upload_model(str(bundle), "oval.tar.gz")
    assert answer.status_code == 200 and answer.json()["success"] is True, answer.text
    (row,) = client.get_models()["models"]
    assert row["model_folder_name"] == "oval"
    client.load_model("oval")
    assert {"op": "reload"} in car.sockets.asked
    with pytest.raises(api_error, match="no model"):
        client.load_model("nothing")
    client.set_manual_mode()


@pytest.mark.usefixtures("quiet")
def test_a_wrong_password_is_noticed_at_the_login(car: ConsoleCar) -> None:
    client = client_of("awsdeepracer_control", car)
    client.password = "wrong"
    with pytest.raises(Exception, match="Log in failed"):
        client.get_models()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("module", ("aws_deepracer_control_v2", "deepracer_vehicle_api"))
def test_the_two_other_clients_run_too(
    car: ConsoleCar, bundle: Path, module: str, request: pytest.FixtureRequest
) -> None:
    client = client_of(module, car, request.getfixturevalue("clients") if module in BESIDE else None)
    client.show_vehicle_info()
    client.get_battery_level()
    assert len(jpegs(client.get_raw_video_stream(), 2)) == 2
    client.set_calibration_mode()
    assert car.gate.status()["mode"] == "calibration"
    client.set_calibration_angle({"mid": -4, "min": -30, "max": 20, "polarity": 1})
    client.set_manual_mode()
    client.start_car()
    move = (0.0, -0.9, 1.0) if module == "aws_deepracer_control_v2" else (0.0, -0.9)  # the other one sends no max_speed
    drives_forward(car, lambda: client.move(*move))
    client.stop_car()
    car.drive_ready()
    client.set_autonomous_mode()
    client.set_throttle_percent(40)
    client.start_car()
    assert car.gate.status()["mode"] == "autonomous"
    client.stop_car()
    assert client.upload_model(str(bundle), "oval.tar.gz").json()["success"] is True
    assert client.get_models()["models"][0]["model_folder_name"] == "oval"
    with pytest.raises(NameError):  # the clients' own fault: they write `null` for None
        client.load_model("oval")


# --- the process


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hl", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "car.toml").write_text(f'state_dir = "{folder}/state"\n[actuator]\nkind = "none"\n')
        yield folder


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "vehicle.console",
        "--config",
        str(folder / "car.toml"),
        "--runtime",
        f"{folder}/run",
    ]
    ports = ["--host", "127.0.0.1", "--port", "0", "--no-mdns"]
    return subprocess.Popen(
        [*command, *ports, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_the_process_prints_its_password_once_serves_and_ends(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = start(short)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    password = re.search(r"the password is (\S+)", lines[2])
    assert password is not None, lines
    assert until(lambda: console_url(short / "run") is not None)
    url = console_url(short / "run")
    assert url is not None and url in lines[0]
    port = int(url.rpartition(":")[2])
    browser = Https(port).log_in(password[1])
    assert browser.ask("GET", "/api/v1/state")[1]["mode"] is None  # no gate runs here
    stream = Https(port)
    stream.cookies = browser.cookies
    stream.connection.request(
        "GET", "/api/v1/events", headers={"Cookie": f"deepracer_token={browser.cookies['deepracer_token']}"}
    )
    stream.connection.getresponse().read(20)
    begun_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (0, "")
    assert time.monotonic() - begun_s < 5.0  # an open stream is not waited for
    assert console_url(short / "run") is None
    stream.close()
    browser.close()
    assert main(["--config", str(short / "car.toml"), "--show-password"]) == 0
    assert capsys.readouterr().out == password[1] + "\n"
    again = start(short)
    assert again.stdout is not None
    told = [again.stdout.readline() for _ in range(2)]
    again.send_signal(signal.SIGINT)
    out, _ = again.communicate(timeout=20)
    assert again.returncode == 0 and password[1] not in "".join(told) + out


def test_systemds_journal_does_not_get_the_password_and_is_told_of_the_start(short: Path) -> None:
    address = short / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(address))
        service.settimeout(30.0)
        environment = {"NOTIFY_SOCKET": str(address), "JOURNAL_STREAM": "8:1", "WATCHDOG_USEC": "1000000"}
        process = start(short, **environment)
        said = service.recv(4096)
        assert said.startswith(b"READY=1\nSTATUS=https://127.0.0.1:")
        assert service.recv(4096) == b"WATCHDOG=1"
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "password" not in out


def test_passwords_on_the_command_line(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = str(short / "car.toml")
    assert main(["--config", toml, "--show-password"]) == 0  # before the first start as well
    first = capsys.readouterr().out
    assert main(["--config", toml, "--reset-password"]) == 0
    second = capsys.readouterr().out
    assert first != second
    (short / "state" / "console" / "first-password").unlink()  # somebody changed it on the page
    assert main(["--config", toml, "--show-password"]) == 2
    assert "--reset-password" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ["--config", str(short / "car.toml"), "--runtime", f"{short}/run", "--host", "127.0.0.1"]
        assert main([*words, "--port", port, "--no-mdns"]) == 2
    said = capsys.readouterr().err
    assert port in said and "another program listens there" in said


def test_only_hotlap_drive_which_says_the_address_takes_any_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "1")
    assert _ports(None)[-2:] == [(False, 8443, 8080), (True, 0, 0)] and _ports(5) == [(True, 5, 0)]
    monkeypatch.delenv(ENVIRONMENT)
    assert _ports(None)[-1] == (True, 8443, 8080)


@pytest.mark.parametrize("text", ("", "{", "[]", '{"pid": 1}', '{"pid": 999999999, "url": "x"}'))
def test_no_console_is_no_url(tmp_path: Path, text: str) -> None:
    assert console_url(tmp_path) is None
    (tmp_path / "console.json").write_text(text)
    assert console_url(tmp_path) is None


# --- the name on the network


def test_a_name_becomes_a_host() -> None:
    assert [host_name(name) for name in ("hotlap", "Red 5", "  Ümlaut.x ", "...", "x" * 99)] == [
        "hotlap", "red-5", "mlaut-x", "hotlap", "x" * 40,
    ]  # fmt: skip


def test_the_console_is_found_by_its_name() -> None:
    pytest.importorskip("zeroconf")
    name = f"test {os.getpid()}"
    made = Announcement(name, 8443)
    try:
        if made.error:
            pytest.skip(f"no multicast here: {made.error}")
        found = resolve(f"{host_name(name)}.local")
        assert found is not None and re.fullmatch(r"\d+\.\d+\.\d+\.\d+", found)
    finally:
        made.close()
    assert resolve(f"{host_name(name)}.local", 0.3) is None


def test_without_zeroconf_or_an_address_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no address" in Announcement("x", 1, []).error
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    made = Announcement("x", 1, ["10.0.0.1"])
    assert "not installed" in made.error
    made.close()
    assert resolve("x.local") is None
