"""Mutation test of the pure C code: every small change of it must make a unit test fail.

    nice -n 10 python firmware_bridge/firmware/mutate.py [--file state.c ...] [--list] [--jobs 2]

A mutant is one change: a comparison, an operator, a number, a condition, a statement left out. Each is compiled into a
library of its own and runs the tests of tests/firmware/suite.py in a child process that was forked with everything
loaded. Mutants that no test notices must be listed in mutants.toml beside this file, each with the reason; the exit
status is 1 when one is not, or when a listed one is noticed after all or is gone.

Why not Mull: it is no Debian package, and wants the compiler of one version of LLVM.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LISTED = HERE / "mutants.toml"
SOURCES = ("proto.c", "config.c", "radio.c", "state.c", "store.c", "bridge.c")
HEADERS = ("proto.h", "config.h", "radio.h", "state.h", "bridge.h")
# Reading or writing past an array of known size ends the child, and so is noticed.
FLAGS = ("-std=c11", "-O0", "-w", "-fPIC", "-fsanitize=bounds", "-fsanitize-undefined-trap-on-error")
TIMEOUT_S = 20  # of a mutant that hangs; it is noticed too

# Which test module notices a fault of a file soonest: it runs first.
FIRST = {
    "proto": "test_proto", "config": "test_greeting", "store": "test_greeting", "radio": "test_radio",
    "state": "test_states", "bridge": "test_greeting",
}  # fmt: skip

# These run last: they simulate a minute.
LONG = (":test_uptime_counts_past_16_bits", ":test_ages_stop_at_their_greatest")

# Operators, longest first; what each is replaced by. None: not a site of its own.
OPERATORS: dict[str, tuple[str, ...]] = {
    "<<": (">>",), ">>": ("<<",), "->": (), "++": ("--",), "--": ("++",), "<=": ("<", ">"), ">=": (">", "<"),
    "==": ("!=",), "!=": ("==",), "&&": ("||",), "||": ("&&",), "|=": ("&=",), "^=": ("|=",), "&=": ("|=",),
    "+=": ("-=",), "-=": ("+=",), "<": ("<=", ">="), ">": (">=", "<="), "+": ("-",), "-": ("+",), "|": ("&",), "^": ("|",),
    "&": ("|",), "~": ("",), "!": ("",),
}  # fmt: skip
TOKEN = re.compile(r"0[xX][0-9A-Fa-f]+|\d+|\w+|" + "|".join(re.escape(text) for text in OPERATORS) + r"|\S")


@dataclass(frozen=True)
class Mutant:
    """`start` and `end` are places in the file's text; file, line and change are how it is listed."""

    file: str
    line: str
    change: str
    start: int
    end: int
    text: str
    number: int

    @property
    def name(self) -> tuple[str, str, str]:
        return self.file, self.line, self.change


def blanked(text: str) -> str:
    """The text with comments and preprocessor lines as spaces, so that places stay what they are."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match.group())

    return re.sub(r"/\*.*?\*/|^#[^\n]*", blank, text, flags=re.DOTALL | re.MULTILINE)


def closing(text: str, start: int) -> int:
    """The place after the parenthesis that closes the one at `start`."""
    depth = 0
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at + 1
    raise ValueError("unbalanced parentheses")


def changes(code: str, header: bool) -> Iterator[tuple[int, int, str, str]]:
    """(start, end, new text, what changes)."""
    previous = ""
    for match in TOKEN.finditer(code):
        token, start, end = match.group(), match.start(), match.end()
        if token[0].isdigit():
            value = int(token, 0)
            for other in {value + 1, max(value - 1, 0)} - {value}:
                yield start, end, str(other), f"{token} -> {other}"
        elif header:
            pass
        elif token in ("true", "false"):
            other_word = "false" if token == "true" else "true"
            yield start, end, other_word, f"{token} -> {other_word}"
        elif token in OPERATORS:
            unary = token in "+-&" and not (previous[-1:].isalnum() or previous[-1:] in ")]_")
            for new in () if unary else OPERATORS[token]:
                yield (
                    start,
                    end,
                    new,
                    f"{token} -> {new or 'nothing'} before {code[end : end + 12].split(chr(10))[0].strip()}",
                )
        elif token in ("if", "while"):
            begin = code.index("(", end)
            stop = closing(code, begin)
            for constant in ("0", "1") if token == "if" else ("0",):
                yield begin, stop, f"({constant})", f"condition -> {constant}"
        previous = token
    if header:
        return
    for match in re.finditer(r"(?<=[{};:)\n])\s*\n +([^\n;]+);(?=\s*\n)|else\n +([^\n;]+);", code):
        group = 1 if match.group(1) else 2
        statement = match.group(group).strip()
        simple = re.match(r"[\w*+-][^={]*(?:[|^&+-]?=|\()|break$|return$|[\w>.-]+(?:\+\+|--)$", statement)
        keyword = re.match(
            r"(?:const |enum |struct |bool |u?int\d+_t |static |return .|if |else |for |while |case )", statement
        )
        if simple and not keyword and statement.count("(") == statement.count(")"):
            yield match.start(group), match.end(group), "", "statement -> nothing"


def mutants_of(file: str) -> list[Mutant]:
    """All mutants of a file."""
    text = (HERE / file).read_text()
    found: list[Mutant] = []
    seen: dict[tuple[str, str], int] = {}
    for start, end, new, change in changes(blanked(text), file.endswith(".h")):
        line = text[text.rfind("\n", 0, start) + 1 : text.index("\n", start)].strip()
        line = re.sub(r"\s*/\*.*", "", line)
        seen[line, change] = seen.get((line, change), 0) + 1
        if seen[line, change] > 1:
            change += f" (#{seen[line, change]})"
        found.append(Mutant(file, line, change, start, end, new, len(found)))
    return found


class Bench:
    """A folder with the code compiled, in which one mutant after the other is built."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("build", "__pycache__", "sim"))
        self._sources = [folder / source for source in (*SOURCES, "native/native.c")]
        for source in self._sources:
            subprocess.run(["gcc", *FLAGS, "-c", "-o", source.with_suffix(".o"), source], check=True)

    def build(self, mutant: Mutant) -> Path | None:
        """The library with this mutant in it, or None: it is no C."""
        path = self.folder / mutant.file
        library = self.folder / f"mutant-{path.stem}-{mutant.number}.so"
        header = path.suffix == ".h"
        parts = [source if header or source == path else source.with_suffix(".o") for source in self._sources]
        text = path.read_text()
        path.write_text(text[: mutant.start] + mutant.text + text[mutant.end :])
        try:
            for at, part in enumerate(parts):
                if part.suffix == ".c":
                    parts[at] = self.folder / f"mutated-{part.stem}.o"
                    if subprocess.run(["gcc", *FLAGS, "-c", "-o", parts[at], part], capture_output=True).returncode:
                        return None
        finally:
            path.write_text(text)
        subprocess.run(["ld", "-shared", "-o", library, *parts], check=True)  # gcc would take five times as long
        return library


def noticed(library: Path, suite: Any, cases: Sequence[Any]) -> bool:
    """Whether a test fails with this library, in a child process."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    signal.alarm(TIMEOUT_S)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    status = 1
    try:
        loaded = suite.load(library)
        for case in cases:
            suite.run(case, loaded)
        status = 0
    except BaseException:  # noqa: BLE001 - the child's outermost frame: whatever is raised, the mutant was noticed
        pass
    os._exit(status)


def survivors(mutants: list[Mutant], suite: Any, folder: Path) -> tuple[list[Mutant], int]:
    """The mutants that no test notices, and how many were no C."""
    bench = Bench(folder)
    cases = suite.cases()
    gc.disable()  # a collection in a forked child would copy every page
    alive, stillborn = [], 0
    for mutant in mutants:
        library = bench.build(mutant)
        if library is None:
            stillborn += 1
            continue
        first = FIRST[Path(mutant.file).stem]
        if not noticed(library, suite, sorted(cases, key=lambda case: (case[0].endswith(LONG), first not in case[0]))):
            alive.append(mutant)
        library.unlink()
    return alive, stillborn


def in_worker(mutants: list[Mutant], folder: Path) -> tuple[list[Mutant], int]:
    """`survivors` in a process of its own, so that benches run side by side without threads in a forking process."""
    numbers = "\n".join(f"{mutant.file} {mutant.number}" for mutant in mutants)
    done = subprocess.run(
        [sys.executable, __file__, "--worker", folder], input=numbers, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"mutate: a worker failed:\n{done.stdout}{done.stderr}")
    lines = done.stdout.split()
    return [mutants[int(index)] for index in lines[1:]], int(lines[0])


def load_suite() -> Any:
    """tests/firmware/suite.py. Some packages install a `tests` of their own, hence by its place."""
    tests = types.ModuleType("tests")
    tests.__path__ = [str(ROOT / "tests")]
    sys.modules["tests"] = tests
    return importlib.import_module("tests.firmware.suite")


def worker(folder: Path) -> None:
    """Judge the mutants that are named on stdin; prints the stillborn and the survivors' places in that list."""
    wanted = [line.split() for line in sys.stdin.read().splitlines()]
    by_file = {file: mutants_of(file) for file, _ in wanted}
    mutants = [by_file[file][int(number)] for file, number in wanted]
    alive, stillborn = survivors(mutants, load_suite(), folder)
    print(stillborn, *(mutants.index(mutant) for mutant in alive))


def judge(alive: list[Mutant], all_names: set[tuple[str, str, str]], files: list[str]) -> bool:
    """Print what is not as listed; whether everything is."""
    entries = tomllib.loads(LISTED.read_text()).get("mutant", []) if LISTED.exists() else []
    listed = {(entry["file"], entry["line"], entry["change"]) for entry in entries if entry["file"] in files}
    names = {mutant.name for mutant in alive}
    for entry in entries:
        if not entry.get("reason", "").strip():
            print(f"listed without a reason: {entry['file']}: {entry['line']}: {entry['change']}")
    for title, group in (
        ("not noticed by any test, and not listed", names - listed),
        ("listed, but a test notices it", (listed & all_names) - names),
        ("listed, but there is no such mutant any more", listed - all_names),
    ):
        for file, line, change in sorted(group):
            print(f"{title}:\n[[mutant]]\nfile = {file!r}\nline = {line!r}\nchange = {change!r}\nreason = ''\n")
    return names == listed and all(entry.get("reason", "").strip() for entry in entries)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--file", nargs="+", default=[*SOURCES, *HEADERS], choices=[*SOURCES, *HEADERS])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker)
        return 0
    mutants = [mutant for file in arguments.file for mutant in mutants_of(file)]
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant.file}: {mutant.line}: {mutant.change}")
        return 0
    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hotlap-mutants-") as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        shares = [mutants[job :: arguments.jobs] for job in range(arguments.jobs)]
        folders = [Path(folder) / f"bench{job}" for job in range(arguments.jobs)]
        results = list(pool.map(in_worker, shares, folders))
    alive = [mutant for part, _ in results for mutant in part]
    stillborn = sum(count for _, count in results)
    right = judge(alive, {mutant.name for mutant in mutants}, arguments.file)
    made = len(mutants) - stillborn
    print(f"{made} mutants, {made - len(alive)} noticed, {len(alive)} not; {time.monotonic() - begin_s:.0f} s")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
