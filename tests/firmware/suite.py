"""The tests of the pure C code without pytest: a mutation test runs them thousands of times, a fork for each.

    python tests/firmware/suite.py LIBRARY      all of them on this library; exit status 1 when one fails

A test is taken when all that it asks for is `library`, `native`, `bridge` (which is the pure code here) and parameters.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("test_proto", "test_states", "test_greeting", "test_radio")
RIGS = ("native", "bridge")

Case = tuple[str, Callable[..., None], dict[str, Any]]


def import_modules() -> list[types.ModuleType]:
    """The test modules. Some packages install a `tests` of their own, which must not be found first."""
    if "tests" not in sys.modules:
        tests = types.ModuleType("tests")
        tests.__path__ = [str(ROOT / "tests")]
        sys.modules["tests"] = tests
    return [importlib.import_module(f"tests.firmware.{name}") for name in MODULES]


def parameters(test: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """Each combination of the test's `pytest.mark.parametrize`."""
    axes = []
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            names = (
                [name.strip() for name in mark.args[0].split(",")] if isinstance(mark.args[0], str) else mark.args[0]
            )
            axes.append([dict(zip(names, row if len(names) > 1 else (row,), strict=True)) for row in mark.args[1]])
    for combination in itertools.product(*axes):
        yield {name: value for part in combination for name, value in part.items()}


def cases() -> list[Case]:
    """(name, test, parameters) of all tests of the pure code."""
    found: list[Case] = []
    for module in import_modules():
        for name, test in vars(module).items():
            if not name.startswith("test_") or not inspect.isfunction(test):
                continue
            wanted = set(inspect.signature(test).parameters)
            if not wanted & {"library", *RIGS}:
                continue
            for values in parameters(test):
                if wanted <= {"library", *RIGS, *values}:
                    found.append((f"{module.__name__}:{name}", test, values))
    return found


def load(path: Path) -> ctypes.CDLL:
    """A library of the pure code."""
    library: ctypes.CDLL = importlib.import_module("tests.firmware.rigs").load_native(path)
    return library


def run(case: Case, library: ctypes.CDLL) -> None:
    """Run one; raises what it raises."""
    native_rig = importlib.import_module("tests.firmware.rigs").native_rig
    _, test, values = case
    wanted = set(inspect.signature(test).parameters)
    arguments = dict(values)
    if "library" in wanted:
        arguments["library"] = library
    with native_rig(library) as rig:
        arguments |= {name: rig for name in RIGS if name in wanted}
        test(**arguments)


def main() -> int:
    tests = cases()
    library = load(Path(sys.argv[1]))
    for case in tests:
        try:
            run(case, library)
        except Exception as error:  # noqa: BLE001 - the outermost frame; any exception is a failed test
            print(f"{case[0]} {case[2]}: {type(error).__name__}: {error}")
            return 1
    print(f"{len(tests)} tests passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
