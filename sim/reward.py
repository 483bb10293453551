"""Reward functions: load one from a file, check it before training, call it for every car at every step.

A reward function is the DeepRacer one, unchanged: ``def reward_function(params)`` that returns a number. It is ordinary
Python and runs with all of your rights. There is no sandbox, on purpose: it is your own laptop and your own file, and
DeepRacer's list of forbidden words kept out useful code without keeping out bad code. Read a stranger's file first.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import json
import math
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sim.errors import RewardError
from sim.reward_deadline import check_deadline
from sim.reward_params import PARAM_KEYS, SYNTHETIC_STATES, Params, synthetic_params

DEFAULT_REWARD = "center_line"
MAX_SOURCE_CHARS = 140_000
"""DeepRacer on AWS's limit for the source (its API's, spec §1 Validation)."""
MAX_ABS_REWARD = 1e5
"""DeepRacer's limit for one step's reward (``markov/agent_ctrl/rollout_agent_ctrl.py``)."""
TIME_LIMIT_S = 5.0
"""For loading the file and all synthetic states together; a working function needs milliseconds."""

_REWARDS_DIR = Path(__file__).parent / "rewards"
_module_ids = itertools.count()


class RewardFunction:
    """A loaded reward function. Call it with a dictionary of ``PARAM_KEYS``; it returns a finite float.

    Globals and classes of the file live as long as this object, so a function may remember things between steps.
    Pickling carries the source, not the state: each worker process starts with a fresh module.

    Attributes:
        name: the file's stem, for instance ``"center_line"``.
        source: the text of the file.
        path: the file it was read from.
        needs_objects: whether it works only where objects are on the road, as DeepRacer's example for obstacles does.
    """

    needs_objects = False

    def __init__(self, name: str, source: str, path: Path) -> None:
        """Compile and run ``source`` as a module of its own.

        Raises:
            RewardError: a syntax error, an error while the file's top level runs, or no usable ``reward_function``.
        """
        self.name = name
        self.source = source
        self.path = path
        self._function = self._load()

    def __reduce__(self) -> tuple[type[RewardFunction], tuple[str, str, Path]]:
        return RewardFunction, (self.name, self.source, self.path)

    def __repr__(self) -> str:
        return f"RewardFunction({self.name!r}, path={str(self.path)!r})"

    def __call__(self, params: Params) -> float:
        """The reward of one step.

        Raises:
            RewardError: the function raised, or returned something that is not a finite number of at most
                ``MAX_ABS_REWARD``; the error carries ``params``.
        """
        try:
            value = self._function(params)
        except (Exception, SystemExit) as error:  # the user's code may raise anything, and may call exit()
            raise self._raised(error, params) from error
        # Nearly always a plain float in range. Written so that NaN, which compares false, takes the slow way too.
        if type(value) is float and -MAX_ABS_REWARD <= value <= MAX_ABS_REWARD:
            return value
        return self._checked(value, params)

    def _load(self) -> Callable[[Params], object]:
        try:
            code = compile(self.source, str(self.path), "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # ValueError: a NUL character
            raise self._not_python(error) from error
        module = types.ModuleType(f"hotlap_reward_{next(_module_ids)}_{self.name}")
        module.__file__ = str(self.path)
        # Standard output belongs to the command line (one JSON object with --json), so print() of a reward
        # function goes to standard error, unless it names a file itself.
        module.__dict__["print"] = _print_to_stderr
        # Dataclasses and pickle look a class's module up by name. The name is new each time, so nothing is cached.
        sys.modules[module.__name__] = module
        try:
            exec(code, module.__dict__)
        except (Exception, SystemExit) as error:
            del sys.modules[module.__name__]
            raise RewardError(
                f"{self.path} stopped with {_describe(error)}{self._where(error)} while it was loaded",
                cause="a package that is missing here" if isinstance(error, ImportError) else "code outside functions",
                next_step="`pip install` the package, or remove the import"
                if isinstance(error, ImportError)
                else "correct that line, then start again",
            ) from error
        return self._find_function(module)

    def _find_function(self, module: types.ModuleType) -> Callable[[Params], object]:
        function: object = module.__dict__.get("reward_function")
        if function is None:
            names = [n for n, v in module.__dict__.items() if inspect.isfunction(v) and v.__module__ == module.__name__]
            near = difflib.get_close_matches("reward_function", names, n=1, cutoff=0.5)
            raise RewardError(
                f"{self.path} has no function named reward_function" + (f", but one named {near[0]}" if near else ""),
                cause="" if near else "another kind of Python file, or the function is inside a class",
                next_step=f"rename {near[0]} to reward_function" if near else "add `def reward_function(params):`",
            )
        if not callable(function) or inspect.iscoroutinefunction(function):
            kind = "an async function" if callable(function) else f"of type {type(function).__name__}"
            raise RewardError(
                f"reward_function in {self.path} is {kind}, not a function",
                next_step="define it with `def reward_function(params):`",
            )
        try:
            signature = inspect.signature(function)
            signature.bind({})
        except TypeError as error:
            raise RewardError(
                f"reward_function{signature} in {self.path} cannot be called with one argument: {error}",
                cause="it must take exactly one argument, the dictionary of parameters",
                next_step="write `def reward_function(params):` and read the values as params['speed']",
            ) from error
        return function

    def _not_python(self, error: BaseException) -> RewardError:
        where, text = "", ""
        if isinstance(error, SyntaxError) and error.lineno is not None:
            where = f" at line {error.lineno}"
            text = f": {(error.text or '').strip()}" if error.text else ""
        message = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        return RewardError(
            f"{self.path} is not valid Python{where} ({message}){text}",
            cause="a missing bracket, colon or quote at that line or the one before it, or mixed tabs and spaces",
            next_step="correct that line, then start again",
        )

    def _raised(self, error: BaseException, params: Params) -> RewardError:
        cause, next_step = "", "correct that line, then start again"
        if isinstance(error, KeyError) and error.args and error.args[0] not in PARAM_KEYS:
            near = difflib.get_close_matches(str(error.args[0]), PARAM_KEYS, n=1)
            cause = "that is not one of the 27 parameters"
            next_step = f"use params[{near[0]!r}]" if near else "choose from: " + ", ".join(PARAM_KEYS)
        elif isinstance(error, ZeroDivisionError):
            cause = "a value that is 0 at some step, such as progress at the start or distance_from_center on the line"
        return RewardError(
            f"reward_function in {self.path} raised {_describe(error)}{self._where(error)}; params {_short(params)}",
            params=params,
            cause=cause,
            next_step=next_step,
        )

    def _where(self, error: BaseException) -> str:
        """The innermost line of the user's file in the traceback, with its text; empty if there is none."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(self.path) and frame.lineno]
        if not lines:
            return ""
        return f" at line {lines[-1]}: `{self.source.splitlines()[lines[-1] - 1].strip()}`"

    def _checked(self, value: object, params: Params) -> float:
        """``value`` as a float, or a RewardError that says what was returned instead of a number."""
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        kind, cause, next_step = type(value).__name__, "", "return one number, for instance `return float(reward)`"
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:  # an int of more than 308 digits
                number = math.inf
            if abs(number) <= MAX_ABS_REWARD:
                return number
            kind = "a number that is not finite" if not math.isfinite(number) else f"more than {MAX_ABS_REWARD:g}"
            cause = "a division by a value close to 0, or a logarithm or power without a bound"
            next_step = "bound it, for instance `return float(min(max(reward, 0.0), 10.0))`"
        elif value is None:
            cause = "some way through the function ends without `return`"
            next_step = "add `return float(reward)` as its last line"
        elif isinstance(value, (bool, np.bool_)):
            next_step = "return 1.0 or 0.0 instead of True or False"
        elif isinstance(value, np.ndarray):
            kind = f"an array of shape {value.shape}"
        raise RewardError(
            f"reward_function in {self.path} returned {shown} ({kind}); params {_short(params)}",
            params=params,
            cause=cause,
            next_step=next_step,
        )


def shipped_rewards() -> tuple[str, ...]:
    """Names of the example functions that come with hotlap, the default first."""
    names = sorted(path.stem for path in _REWARDS_DIR.glob("*.py") if not path.stem.startswith("_"))
    return (DEFAULT_REWARD, *(name for name in names if name != DEFAULT_REWARD))


def load_reward(path_or_name: str | Path | None = None) -> RewardFunction:
    """Load a reward function and try it on synthetic states.

    Args:
        path_or_name: ``None`` for the default, one of ``shipped_rewards()``, or the path of a Python file.

    The file is read anew at every call. A user's file first runs in a child process with a time limit, because only a
    process can be stopped whatever it does; then it is loaded here.

    Raises:
        RewardError: the file is missing, not text, too long, not Python or without a usable ``reward_function``; or
            ``check_reward`` refuses it; or all of that takes longer than ``TIME_LIMIT_S``.
    """
    chosen = DEFAULT_REWARD if path_or_name is None else path_or_name
    shipped = str(chosen) in shipped_rewards()
    path = _REWARDS_DIR / f"{chosen}.py" if shipped else Path(chosen)
    source = _read(path)
    if not shipped:
        check_deadline(source, path, synthetic_params(), limit_s=TIME_LIMIT_S)
    reward = RewardFunction(path.stem, source, path)
    if not shipped:
        check_reward(reward)
    return reward


def check_reward(reward: RewardFunction) -> dict[str, float]:
    """Call ``reward`` on every synthetic state, and return the reward of each by the state's name.

    Raises:
        RewardError: it raised, or returned something that is not a finite number of at most ``MAX_ABS_REWARD``.
    """
    try:
        return _try(reward, synthetic_params())
    except RewardError as error:
        # DeepRacer's own example for obstacles takes the next object from a list that is empty on an empty road.
        if not isinstance(error.__cause__, IndexError) or "objects_" not in reward.source:
            raise
    rewards = _try(reward, synthetic_params(objects=True))
    reward.needs_objects = True
    return rewards


def _try(reward: RewardFunction, states: list[Params]) -> dict[str, float]:
    return {name: reward(params) for name, params in zip(SYNTHETIC_STATES, states, strict=True)}


def check_for_empty_road(reward: RewardFunction) -> None:
    """Raise RewardError for a function that works only where objects are on the road, before anything drives."""
    if reward.needs_objects:
        raise RewardError(
            f"{reward.path} takes an object from params['objects_location'], which is empty: the road has no objects",
            cause="it is for object avoidance or head-to-bot races; DeepRacer's time trial stops with the same error",
            next_step="--race object_avoidance, or --race head_to_bot, or choose another function",
        )


def call_all(reward: RewardFunction, params_list: Sequence[Params]) -> npt.NDArray[np.float64]:
    """The rewards of many cars, shape (n,); raises RewardError at the first that fails."""
    return np.fromiter(map(reward, params_list), dtype=np.float64, count=len(params_list))


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        near = difflib.get_close_matches(path.stem, shipped_rewards(), n=1)
        raise RewardError(
            f"cannot read the reward function {path}: {error.strerror or error}",
            cause="it is neither a file nor one of the shipped functions: " + ", ".join(shipped_rewards()),
            next_step=f"did you mean --reward {near[0]}?" if near else "check the path, or choose a shipped function",
        ) from error
    try:
        source = data.decode("utf-8-sig")  # Windows editors put a byte-order mark first
    except UnicodeDecodeError as error:
        raise RewardError(
            f"{path} is not UTF-8 text (byte {data[error.start]:#04x} at offset {error.start})",
            cause="it was saved in another encoding, or is not a Python file",
            next_step="save it as UTF-8 in your editor",
        ) from error
    if len(source) > MAX_SOURCE_CHARS:
        raise RewardError(
            f"{path} has {len(source):,} characters; the limit is {MAX_SOURCE_CHARS:,}",
            cause="a table of data inside the function",
            next_step="keep the data in a file of its own that the function reads once",
        )
    return source


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _short(params: Params) -> str:
    """JSON of the parameters without the long list of waypoints, floats to six figures. Never fails."""
    small = {
        key: float(f"{value:.6g}") if isinstance(value, float) else value
        for key, value in params.items()
        if key != "waypoints" and value != []
    }
    return json.dumps(small, default=repr)


def _print_to_stderr(*values: object, **options: object) -> None:
    options.setdefault("file", sys.stderr)
    print(*values, **options)  # type: ignore[call-overload]
