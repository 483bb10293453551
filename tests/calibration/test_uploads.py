"""Uploads that are resumed, refused, cut off and attacked."""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from calibration import uploads
from calibration.car_link import CarRefused
from calibration.uploads import MAX_UPLOAD_BYTES, MAX_UPLOADS, Uploads
from tests.calibration.console_rig import Browser, FakeCar, reason, shared

DATA = random.Random(1).randbytes(100_000)  # the same in every process of a parallel run
SHA = hashlib.sha256(DATA).hexdigest()


def begin(browser: Browser, data: bytes = DATA, sha256: str | None = None, name: str = "m.tar.gz") -> TestResponse:
    sha256 = sha256 or hashlib.sha256(data).hexdigest()
    return browser.post("/api/v1/uploads", {"size": len(data), "sha256": sha256, "name": name})


def send(browser: Browser, data: bytes, offset: int, sha256: str = SHA) -> TestResponse:
    return browser.ask("PATCH", f"/api/v1/uploads/{sha256}", data=data, headers={"Upload-Offset": str(offset)})


def files(app: Flask) -> list[str]:
    folder = shared(app).uploads.folder
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_in_pieces_is_installed_and_then_gone(app: Flask, browser: Browser, car: FakeCar) -> None:
    answer = begin(browser)
    assert (answer.status_code, answer.json["upload"], answer.json["offset"]) == (201, SHA, 0)  # type: ignore[index]
    for at in range(0, len(DATA), 30_000):
        piece = DATA[at : at + 30_000]
        assert send(browser, piece, at).json == {"upload": SHA, "offset": at + len(piece)}
    answer = browser.post(f"/api/v1/uploads/{SHA}/install", {"name": "mine"})
    assert answer.json == {"sha256": SHA, "new": True, "name": "mine", "report": {"p99_ms": 5.0}, "activated": False}
    assert files(app) == []
    assert reason(browser.get(f"/api/v1/uploads/{SHA}")) == "unknown_upload"


def test_it_goes_on_where_it_stopped_after_another_start_too(app: Flask, browser: Browser) -> None:
    begin(browser)
    send(browser, DATA[:30_000], 0)
    assert begin(browser).json["offset"] == 30_000  # type: ignore[index]
    again = Uploads(shared(app).uploads.folder)
    assert (again.offset(SHA), again.size(SHA)) == (30_000, len(DATA))
    answer = send(browser, DATA[:30_000], 0)  # a piece sent twice
    assert (answer.status_code, reason(answer)) == (409, "wrong_offset")
    send(browser, DATA[30_000:], 30_000)
    assert browser.post(f"/api/v1/uploads/{SHA}/install", {"activate": True}).json["activated"] is True  # type: ignore[index]


def test_what_came_before_a_lost_connection_stays(tmp_path: Path) -> None:
    store = Uploads(tmp_path)
    store.begin(len(DATA), SHA)
    assert store.append(SHA, 0, 50_000, io.BytesIO(DATA[:20_000])) == 20_000

    class Lost(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 65_536:
                raise CarRefused("bad_request", "the client has gone")
            return super().read(size)

    with pytest.raises(CarRefused):
        store.append(SHA, 20_000, 80_000, Lost(DATA[20_000:]))
    assert store.offset(SHA) == 20_000 + 65_536
    store.append(SHA, 85_536, 14_464, io.BytesIO(DATA[85_536:]))
    with store.finished(SHA) as path:
        assert path.read_bytes() == DATA


def test_another_content_than_announced_is_refused_and_gone(app: Flask, browser: Browser, car: FakeCar) -> None:
    begin(browser)
    send(browser, b"x" + DATA[1:], 0)
    answer = browser.post(f"/api/v1/uploads/{SHA}/install")
    assert (answer.status_code, reason(answer)) == (409, "sha256_mismatch")
    assert files(app) == [] and car.installed == {}


def test_a_verdict_is_passed_on_and_only_what_may_pass_keeps_the_file(
    app: Flask, browser: Browser, car: FakeCar
) -> None:
    for why, kept in (("golden_mismatch", False), ("armed", True), ("foreign", False), ("busy", True)):
        offset = begin(browser).json["offset"]  # type: ignore[index]
        if offset < len(DATA):
            send(browser, DATA, 0)
        car.refuse_install = CarRefused(why, "frame 3 differs", cause="another graph", next_step="export it again")
        answer = browser.post(f"/api/v1/uploads/{SHA}/install", {"activate": True})
        assert answer.status_code == 409
        assert answer.json == {
            "error": {"reason": why, "what": "frame 3 differs", "cause": "another graph", "next": "export it again"}
        }
        assert (files(app) != []) is kept
    assert car.installed == {}


def test_an_armed_car_takes_no_uploads(browser: Browser, car: FakeCar) -> None:
    begin(browser)
    car.autonomous_ready()
    assert browser.post("/api/v1/arm").status_code == 200
    for answer in (begin(browser), send(browser, DATA, 0)):
        assert (answer.status_code, reason(answer)) == (409, "armed")
    browser.post("/api/v1/disarm")
    assert send(browser, DATA, 0).status_code == 200


@pytest.mark.parametrize(
    ("size", "sha256", "status"),
    (
        (0, SHA, 400), (-1, SHA, 400), (MAX_UPLOAD_BYTES + 1, SHA, 413), (2**60, SHA, 400), (5.0, SHA, 201),
        ("5", SHA, 400), (5, SHA.upper(), 400), (5, "../" + SHA[3:], 400), (5, SHA + "\n", 400), (5, "", 400),
        (5, None, 400), (5, SHA * 2, 400),
    ),
)  # fmt: skip
def test_what_is_no_upload_is_not_begun(
    app: Flask, browser: Browser, size: object, sha256: object, status: int
) -> None:
    answer = browser.post("/api/v1/uploads", {"size": size, "sha256": sha256, "name": "x"})
    assert answer.status_code == status, answer.text
    assert (files(app) != []) is (status == 201)


@pytest.mark.parametrize("upload", ("0" * 64, "..", "%2e%2e", "x" * 64, SHA[:-1]))
def test_an_upload_that_was_not_begun_is_none(app: Flask, browser: Browser, upload: str) -> None:
    for answer in (
        browser.get(f"/api/v1/uploads/{upload}"),
        send(browser, b"x", 0, upload),
        browser.post(f"/api/v1/uploads/{upload}/install"),
    ):
        assert answer.status_code == 404
    assert files(app) == []


@pytest.mark.parametrize("offset", ("", "-1", "x", "1e3", "9" * 20, "²", " 0"))
def test_an_offset_is_a_number(browser: Browser, offset: str) -> None:
    begin(browser)
    answer = browser.ask(
        "PATCH", f"/api/v1/uploads/{SHA}", data=b"x", headers={"Upload-Offset": offset.encode().decode("latin-1")}
    )
    assert answer.status_code in (400, 409) and reason(answer) != "internal"
    assert browser.get(f"/api/v1/uploads/{SHA}").json["offset"] == 0  # type: ignore[index]


def test_pieces_stay_within_the_file_and_within_reason(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(browser)
    answer = send(browser, DATA + b"x", 0)
    assert (answer.status_code, reason(answer)) == (413, "too_large")
    assert reason(send(browser, b"", 0)) == "too_large"
    monkeypatch.setattr(uploads, "MAX_PIECE_BYTES", 1000)
    assert reason(send(browser, DATA[:1001], 0)) == "too_large"
    assert send(browser, DATA[:1000], 0).json["offset"] == 1000  # type: ignore[index]
    answer = browser.ask(
        "PATCH",
        f"/api/v1/uploads/{SHA}",
        headers={"Upload-Offset": "1000", "Content-Length": str(MAX_UPLOAD_BYTES + 1)},
    )
    assert answer.status_code == 413


def test_an_incomplete_file_is_kept_and_not_installed(browser: Browser, car: FakeCar) -> None:
    begin(browser)
    send(browser, DATA[:10], 0)
    assert reason(browser.post(f"/api/v1/uploads/{SHA}/install")) == "incomplete"
    assert browser.get(f"/api/v1/uploads/{SHA}").json == {"upload": SHA, "offset": 10, "size": len(DATA)}


def test_another_size_begins_anew(browser: Browser) -> None:
    begin(browser)
    send(browser, DATA[:10], 0)
    answer = browser.post("/api/v1/uploads", {"size": 500, "sha256": SHA})
    assert answer.json["offset"] == 0  # type: ignore[index]


def test_only_the_newest_few_are_kept(app: Flask, browser: Browser) -> None:
    for i in range(MAX_UPLOADS + 2):
        assert begin(browser, DATA + bytes([i])).status_code == 201
    kept = {name for name in files(app) if name.endswith(".part")}
    newest = {hashlib.sha256(DATA + bytes([i])).hexdigest() + ".part" for i in range(2, MAX_UPLOADS + 2)}
    assert kept == newest


def test_one_writer_a_file(tmp_path: Path) -> None:
    store = Uploads(tmp_path)
    store.begin(len(DATA), SHA)

    class Again(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            with pytest.raises(CarRefused) as caught:
                store.append(SHA, 0, 10, io.BytesIO(DATA))
            assert caught.value.reason == "busy"
            return super().read(size)

    assert store.append(SHA, 0, 10, Again(DATA)) == 10


def test_a_full_disk_is_said_before_anything_is_sent(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads.os, "statvfs", lambda path: SimpleNamespace(f_bavail=100, f_frsize=4096))
    answer = begin(browser)
    assert (answer.status_code, reason(answer)) == (507, "storage")


def test_what_a_killed_console_left_of_a_form_is_swept(tmp_path: Path) -> None:
    (tmp_path / "spool-x").write_bytes(b"x")
    (tmp_path / f"{SHA}.part").write_bytes(b"x")
    Uploads(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{SHA}.part"]


@pytest.mark.parametrize(
    "data",
    (DATA * 4, b"\r\n" * 200_000, b"\r\n--" * 100_000, bytes(450_000)),
    ids=("random", "lines", "dashes", "zeros"),
)
def test_deepracers_form_is_spooled_on_the_cars_disk_and_gone(
    app: Flask, browser: Browser, car: FakeCar, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    seen: list[Path] = []
    install = car.install
    monkeypatch.setattr(car, "install", lambda path, name: (seen.append(path), install(path, name))[1])
    answer = browser.ask("PUT", "/api/uploadModels", data={"file": (io.BytesIO(data), "oval.tar.gz")})
    assert answer.json is not None and answer.json.get("success") is True, answer.text
    assert [path.parent for path in seen] == [shared(app).uploads.folder]
    answer.close()
    assert files(app) == []
    assert next(iter(car.installed.values()))["name"] == "oval"
    assert next(iter(car.installed)) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("sent", "name"),
    (("../../../etc/cron.d/x.tar.gz", "x"), ("..\\..\\x.tar.gz", "x"), ("a b;rm -rf.tar.gz", "a-b-rm--rf"),
     ("....tar.gz", "model"), ("\x00.tar.gz", "model"), ("ü" * 200 + ".tar.gz", "model")),
)  # fmt: skip
def test_the_name_of_a_form_leads_nowhere(browser: Browser, car: FakeCar, sent: str, name: str) -> None:
    answer = browser.ask("PUT", "/api/uploadModels", data={"file": (io.BytesIO(DATA), sent)})
    assert answer.json is not None
    if answer.json["success"]:
        assert next(iter(car.installed.values()))["name"] == name
    else:
        assert car.installed == {}


@pytest.mark.parametrize("data", ({}, {"file": (io.BytesIO(b"x"), "x.zip")}, {"file": (io.BytesIO(b"x"), "")}))
def test_a_form_without_a_model_is_refused(browser: Browser, data: dict[str, object]) -> None:
    answer = browser.ask("PUT", "/api/uploadModels", data=data, content_type="multipart/form-data")
    assert answer.json is not None and answer.json["success"] is False
    assert answer.status_code == 200


def test_a_form_that_is_too_large_is_not_read(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.deepracer_api.MAX_UPLOAD_BYTES", 1000)
    answer = browser.ask("PUT", "/api/uploadModels", data={"file": (io.BytesIO(bytes(200_000)), "x.tar.gz")})
    assert answer.status_code == 413
