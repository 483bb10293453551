"""Mutation test of the gate's pure core: every small change of its code must make a unit test fail.

    nice -n 10 python tools/mutate_gate.py [--file vehicle/leases.py ...] [--list]

A mutant is one change of one module: a comparison, a boolean or arithmetic operator, a number, a condition, a returned
value, a statement left out, ... Each runs the unit tests (not the fuzz) in a child process that was forked with the
libraries loaded; a child imports the changed module from memory, no file is written. Mutants that no test notices must
be listed in tests/vehicle/gate_mutants.toml, each with the reason; the exit status is 1 when one is not, or when a
listed one is noticed after all.

Why not mutmut or cosmic-ray: mutmut changes texts (most of its survivors) but no limit at class or module level, and
numbers its mutants anew with every edit; cosmic-ray starts a new pytest for each.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
LISTED = ROOT / "tests/vehicle/gate_mutants.toml"
NAMES = (
    "messages", "arming", "leases", "gate_requests", "controls", "intent_stream", "gate_motion", "gate_core",
)  # fmt: skip
FILES = tuple(f"vehicle/{name}.py" for name in NAMES)
TIMEOUT_S = 120  # a mutant that hangs is noticed too

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One change. `key` is stable: it changes only with the function that it is in."""

    file: str
    where: str
    change: str
    line: int
    code: CodeType

    @property
    def key(self) -> tuple[str, str, str]:
        """What gate_mutants.toml names it by."""
        return self.file, self.where, self.change


def mutants(file: str) -> list[Mutant]:
    """All mutants of a file, in the order of its lines; equal changes in one function are numbered."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found: list[Mutant] = []
    seen: dict[tuple[str, str], int] = {}
    for path, where in _places(tree, (), "(module)"):
        node = _at(tree, path)
        for other in _changes(node):
            changed = copy.deepcopy(tree)
            parent, field, index = _at(changed, path[:-1]), *path[-1]
            if index is None:
                setattr(parent, field, other)
            else:
                getattr(parent, field)[index] = other
            change = f"{_short(node)}  ->  {_short(other)}"
            number = seen[where, change] = seen.get((where, change), 0) + 1
            if number > 1:
                change += f"  #{number}"
            code = compile(ast.fix_missing_locations(changed), str(ROOT / file), "exec")
            found.append(Mutant(file, where, change, getattr(node, "lineno", 0), code))
    return found


Path_ = tuple[tuple[str, "int | None"], ...]


def _places(node: ast.AST, path: Path_, where: str) -> Iterator[tuple[Path_, str]]:
    """The path to every node that may be changed, with the function or class that it is in."""
    if path:
        yield path, where
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases", "type_comment"):
            continue
        many = isinstance(value, list)
        for index, child in enumerate(value if many else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, (ast.Import, ast.ImportFrom)):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue  # a docstring
            inner = where
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = child.name if where == "(module)" else f"{where}.{child.name}"
            yield from _places(child, (*path, (field, index if many else None)), inner)


def _at(tree: ast.AST, path: Path_) -> ast.AST:
    node: ast.AST = tree
    for field, index in path:
        value = getattr(node, field)
        node = value if index is None else value[index]
    return node


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                yield ast.Compare(node.left, [*node.ops[:place], other(), *node.ops[place + 1 :]], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        for place in range(len(node.values)):
            left = node.values[:place] + node.values[place + 1 :]
            yield left[0] if len(left) == 1 else ast.BoolOp(node.op, left)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        # "|" between types and "%" are left alone; texts are not added here
        yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.Constant):
        yield from _other_constants(node.value)
    elif isinstance(node, (ast.If, ast.IfExp)):
        for value in (True, False):
            branch = copy.copy(node)
            branch.test = ast.Constant(value)
            yield branch
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield ast.Call(ast.Name(CALLS[node.func.id], ast.Load()), node.args, node.keywords)
    elif isinstance(node, (ast.Expr, ast.Raise, ast.Continue)) or (
        isinstance(node, (ast.Assign, ast.AugAssign)) and any(_keeps(t) for t in _targets(node))
    ):
        yield ast.Pass()


def _other_constants(value: object) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, float):
        step = abs(value) * 0.01 or 0.001
        yield ast.Constant(value + step)
        yield ast.Constant(value - step)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _targets(node: ast.Assign | ast.AugAssign) -> Sequence[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def _keeps(target: ast.expr) -> bool:
    """Whether an assignment to it leaves an attribute or element, without which the code still runs."""
    if isinstance(target, ast.Tuple):
        return all(_keeps(one) for one in target.elts)
    return isinstance(target, (ast.Attribute, ast.Subscript))


def _short(node: ast.AST) -> str:
    if isinstance(node, ast.If):
        return f"if {ast.unparse(node.test)}"
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 160 else text[:157] + "..."


# --- running


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from the code of a mutant."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = mutant.file.removesuffix(".py").replace("/", ".")
        self._code = mutant.code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of the changed module, None for every other."""
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed code."""
        exec(self._code, module.__dict__)


def noticed(mutant: Mutant) -> bool:
    """Whether a test fails (or hangs) with this mutant: the module's own first, then all others."""
    own = Path(mutant.file).stem
    return fails(mutant, [own]) or fails(mutant, [name for name in NAMES if name != own])


def fails(mutant: Mutant | None, names: Sequence[str]) -> bool:
    """Whether a test of these modules fails with this mutant; None is the code as it is."""
    tests = [f"tests/vehicle/test_{name}.py" for name in names]
    child = os.fork()
    if child == 0:
        _run_child(mutant, tests)
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        if time.monotonic() > deadline_s:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.01)


def _run_child(mutant: Mutant | None, tests: list[str]) -> None:
    status = 70
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        if mutant is not None:
            sys.meta_path.insert(0, _Changed(mutant))
        import pytest

        # Without conftest: its look for leaked processes after each test costs more than the tests.
        options = ["-x", "-q", "--noconftest", "-p", "no:cacheprovider", "-p", "no:cov", "--rootdir", str(ROOT)]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is loaded already
        status = int(pytest.main([*options, *tests]))
    finally:
        os._exit(status)


def _load_libraries() -> None:
    """What every child needs and no mutant touches."""
    import hypothesis
    import hypothesis.strategies
    import pytest

    import calibration.mapping
    import vehicle.car_config
    import vehicle.errors

    hypothesis.settings.register_profile("mutants", database=None, derandomize=True)
    hypothesis.settings.load_profile("mutants")
    assert pytest and calibration.mapping and vehicle.car_config and vehicle.errors
    for file in FILES:
        name = file.removesuffix(".py").replace("/", ".")
        assert name not in sys.modules, f"{name} must not be loaded before it is changed"


def listed() -> dict[tuple[str, str, str], str]:
    """The mutants that may stay unnoticed, each with its reason."""
    entries = tomllib.loads(LISTED.read_text(encoding="utf-8")).get("survivor", [])
    return {(one["file"], one["where"], one["change"]): one["reason"] for one in entries}


def main() -> int:
    """Run all mutants; 0 when exactly the listed ones went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", action="append", choices=FILES, help="only mutants of this file")
    parser.add_argument("--list", action="store_true", help="print the mutants, run nothing")
    options = parser.parse_args()
    todo = [mutant for file in options.file or FILES for mutant in mutants(file)]
    if options.list:
        for mutant in todo:
            print(f"{mutant.file}:{mutant.line} {mutant.where}: {mutant.change}")
        return 0
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    _load_libraries()
    if fails(None, NAMES):
        print("the tests fail without any change: mend them first", file=sys.stderr)
        return 2
    allowed = listed()
    survivors: list[Mutant] = []
    begun_s = time.monotonic()
    for number, mutant in enumerate(todo, 1):
        if not noticed(mutant):
            survivors.append(mutant)
            mark = "listed" if mutant.key in allowed else "UNNOTICED"
            print(f"{mark} {mutant.file}:{mutant.line} {mutant.where}: {mutant.change}", flush=True)
        if number % 100 == 0:
            print(f"{number} of {len(todo)} after {time.monotonic() - begun_s:.0f} s", file=sys.stderr, flush=True)
    unlisted = [mutant for mutant in survivors if mutant.key not in allowed]
    met = {mutant.key for mutant in survivors}
    stale = [key for key in allowed if key not in met and (not options.file or key[0] in options.file)]
    for key in stale:
        print(f"listed, but noticed or gone: {' | '.join(key)}")
    print(f"{len(todo)} mutants, {len(survivors)} unnoticed, {len(unlisted)} of them not listed, {len(stale)} stale")
    return 1 if unlisted or stale else 0


if __name__ == "__main__":
    sys.exit(main())
