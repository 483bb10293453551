"""The command `hotlap models`: install, list, activate, roll back, remove and allow the models of this car."""

from __future__ import annotations

import argparse
from typing import Any

from calibration.store import load_calibration
from vehicle.car_config import CarConfig, load_car_config, this_car
from vehicle.client import emit
from vehicle.errors import GateError
from vehicle.links import request, runtime_dir
from vehicle.slot_install import install_bundle
from vehicle.slots import InstalledModel, ModelStore

SHOWN_SHA_CHARACTERS = 12


def models(args: argparse.Namespace) -> int:
    """Run ``hotlap models``; returns the exit status.

    Raises:
        SlotError: the refusal, by its name.
        ConfigError: the car's configuration is wrong.
        CalibrationError: the car's calibration is damaged.
    """
    car = load_car_config(this_car(getattr(args, "config", None)))
    store = ModelStore(car.state_path() / "models", is_armed=is_armed)
    as_json = bool(getattr(args, "json", False))
    action = args.action or "list"
    if action == "install":
        return _install(args, store, car, as_json)
    if action == "list":
        emit(as_json, _listing(store), "" if as_json else _table(store))
        return 0
    if action == "rollback":
        state = store.rollback()
        emit(as_json, state.roles(), f"back to model {_short(state.current)}; it drives from the next start on")
        return 0
    sha256 = store.find(args.sha256)
    if action == "activate":
        state = store.activate(sha256)
        text = f"model {_short(sha256)} drives from the next start on"
        if state.trial is not None:
            text += ", on trial: with its speed capped until it has proved itself"
    elif action == "remove":
        state, text = store.remove(sha256), f"model {_short(sha256)} is gone"
    else:
        state, text = store.allow(sha256), f"model {_short(sha256)} is allowed; hotlap models activate it to try again"
    emit(as_json, {"sha256": sha256, **state.roles()}, text)
    return 0


def is_armed() -> bool:
    """Whether the gate of this car says that it is armed. A gate that does not answer is not running, and a hung one is
    held at neutral by its guard: neither is armed."""
    try:
        return request(runtime_dir(), "gate.request", {"op": "status"}).get("armed") is not False
    except GateError:
        return False


def _install(args: argparse.Namespace, store: ModelStore, car: CarConfig, as_json: bool) -> int:
    path = car.calibration_path()
    done = install_bundle(store, args.bundle, car, load_calibration(path) if path.exists() else None)
    state = store.activate(done.sha256) if args.activate else store.state()
    text = f"model {_short(done.sha256)} " + ("is installed" if done.new else "was installed already")
    if "p99_ms" in done.report:
        text += (
            f": one inference takes {done.report['p50_ms']:.2f} ms (p99 {done.report['p99_ms']:.2f} ms) here, golden "
            f"vectors within {done.report['golden_difference']:.1e}"
        )
    if args.activate:
        text += "\nit drives from the next start on" + (", on trial" if state.trial else "")
    else:
        text += f"\nnext: hotlap models activate {_short(done.sha256)}"
    emit(as_json, {"sha256": done.sha256, "new": done.new, "report": done.report, **state.roles()}, text)
    return 0


def _short(sha256: str | None) -> str:
    return (sha256 or "none")[:SHOWN_SHA_CHARACTERS]


def _listing(store: ModelStore) -> dict[str, Any]:
    return {"models": [{**vars(model)} for model in store.list()], **store.state().roles()}


def _table(store: ModelStore) -> str:
    from rich.console import Console  # here, since programs that ask for JSON need not wait for it
    from rich.table import Table

    state, found = store.state(), store.list()
    if not found and not state.barred and state.notice is None:
        return "no model is installed\nnext: hotlap models install RUN/bundle.tar.gz"
    caption = ""
    if state.notice is not None:
        caption = f"{state.notice.reason}: model {_short(state.notice.sha256)}: {state.notice.what}"
    table = Table(title="Models", title_justify="left", caption=caption or None, caption_justify="left")
    for column in ("model", "role"):
        table.add_column(column, no_wrap=True)
    for column in ("kB", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    table.add_column("barred")
    for model in found:
        table.add_row(
            _short(model.sha256), model.role, f"{model.size_bytes / 1e3:.0f}",
            _figure(model, "p50_ms"), _figure(model, "p99_ms"), model.barred,
        )  # fmt: skip
    for sha256 in sorted(set(state.barred) - {model.sha256 for model in found}):
        table.add_row(_short(sha256), "removed", "", "", "", state.barred[sha256])
    console = Console(highlight=False, markup=False)
    with console.capture() as page:
        console.print(table)
    return page.get().rstrip("\n")


def _figure(model: InstalledModel, key: str) -> str:
    value = model.report.get(key)
    return f"{value:.2f}" if isinstance(value, (int, float)) else "?"
