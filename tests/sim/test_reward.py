"""Loading, checking and calling reward functions, with real files and a real child process for the time limit."""

from __future__ import annotations

import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from sim import reward as reward_module
from sim.errors import RewardError
from sim.reward import call_all, check_reward, load_reward, shipped_rewards
from sim.reward_deadline import check_deadline
from sim.reward_params import SYNTHETIC_STATES, synthetic_params


def write(tmp_path: Path, source: str, name: str = "mine.py") -> Path:
    path = tmp_path / name
    path.write_text(source, encoding="utf-8")
    return path


def returns(tmp_path: Path, expression: str) -> Path:
    return write(tmp_path, f"import math\nimport numpy as np\ndef reward_function(params):\n    return {expression}\n")


def test_default_is_the_centre_line_and_comes_first() -> None:
    assert load_reward().name == shipped_rewards()[0] == "center_line"
    assert load_reward(None).source == load_reward("center_line").source


def test_a_users_file_is_loaded_and_called(tmp_path: Path) -> None:
    path = returns(tmp_path, "params['speed'] * 2")
    reward = load_reward(path)
    assert (reward.name, reward.path, reward.source) == ("mine", path, path.read_text(encoding="utf-8"))
    assert reward({"speed": 0.7}) == 1.4
    assert check_reward(reward) == {
        "valid": 1.6, "start": 0.8, "progress": 1.6, "off_track": 1.6, "finish": 0.8, "reversed": 0.8, "clockwise": 1.6
    }  # fmt: skip


def test_a_changed_file_is_seen_by_the_next_load_only(tmp_path: Path) -> None:
    path = returns(tmp_path, "1.0")
    before = load_reward(path)
    path.write_text(path.read_text(encoding="utf-8").replace("1.0", "2.0"), encoding="utf-8")
    assert (before({}), load_reward(path)({})) == (1.0, 2.0)


def test_globals_and_dataclasses_work_and_two_loads_do_not_share_them(tmp_path: Path) -> None:
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Memory:\n"
        "    calls: int = 0\nmemory = Memory()\n"
        "def reward_function(params):\n    memory.calls += 1\n    return memory.calls\n"
    )
    path = write(tmp_path, source)
    one, other = load_reward(path), load_reward(path)
    n = len(SYNTHETIC_STATES)
    assert [one({}), one({}), other({})] == [n + 1.0, n + 2.0, n + 1.0]


def test_pickle_takes_the_source_along_not_the_file(tmp_path: Path) -> None:
    path = returns(tmp_path, "3")
    sent = pickle.dumps(load_reward(path))
    path.unlink()
    assert pickle.loads(sent)({}) == 3.0


def test_print_does_not_reach_standard_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_reward(write(tmp_path, "print('top')\ndef reward_function(params):\n    print('inside')\n    return 1.0\n"))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "inside" in captured.err


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "windows.py"
    path.write_bytes(b"\xef\xbb\xbfdef reward_function(params):\r\n    return 1.0\r\n")
    assert load_reward(path)({}) == 1.0


@pytest.mark.parametrize("expression", ["1", "1.5", "np.float32(0.5)", "np.int64(2)", "-1e5"])
def test_real_numbers_are_accepted_as_float(tmp_path: Path, expression: str) -> None:
    reward = load_reward(returns(tmp_path, expression))
    assert type(reward({})) is float
    assert reward({}) == eval(expression)  # the same expression, evaluated here


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("'1.0'", "returned '1.0' (str)"),
        ("None", "without `return`"),
        ("True", "1.0 or 0.0"),
        ("np.bool_(True)", "1.0 or 0.0"),
        ("np.ones(2)", "array of shape (2,)"),
        ("[1.0]", "returned [1.0] (list)"),
        ("1 + 2j", "(complex)"),
        ("math.nan", "not finite"),
        ("np.float32('nan')", "not finite"),
        ("-math.inf", "not finite"),
        ("10 ** 400", "not finite"),
        ("100001", "more than 100000"),
        ("np.nextafter(1e5, 1e6)", "more than 100000"),
    ],
)
def test_what_is_not_a_usable_number_is_refused(tmp_path: Path, expression: str, said: str) -> None:
    with pytest.raises(RewardError) as caught:
        load_reward(returns(tmp_path, expression))
    assert said in str(caught.value)
    assert "next:" in str(caught.value)
    assert caught.value.params is not None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def reward_function(params):\n    return (1.0\n", "at line 2"),
        ("x = 1\nx = 'two' + 2\ndef reward_function(params):\n    return 1.0\n", "at line 2: `x = 'two' + 2`"),
        ("import no_such_package_here\n", "pip install"),
        ("def reward(params):\n    return 1.0\n", "rename reward to reward_function"),
        ("class A:\n    pass\n", "no function named reward_function"),
        ("reward_function = 3\n", "of type int"),
        ("async def reward_function(params):\n    return 1.0\n", "async"),
        ("def reward_function():\n    return 1.0\n", "exactly one argument"),
        ("def reward_function(params, speed):\n    return 1.0\n", "exactly one argument"),
        ("def reward_function(*, params):\n    return 1.0\n", "exactly one argument"),
        ("a = '\0'\n", "not valid Python"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3 at line 2"),
        ("def reward_function(params):\n    exit()\n", "raised SystemExit"),
        ("import os\nos._exit(3)\n", "exit status 3"),
        ("def reward_function(params):\n    return params['closest_waypoint'][0]\n", "use params['closest_waypoints']"),
        (
            "def div(a, b):\n    return a / b\ndef reward_function(params):\n    return div(1.0, params['progress'])\n",
            "ZeroDivisionError: float division by zero at line 2: `return a / b`",
        ),
        ("#" * 140_001, "140,001 characters; the limit is 140,000"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(tmp_path: Path, source: str, said: str) -> None:
    before = set(sys.modules)
    with pytest.raises(RewardError) as caught:
        load_reward(write(tmp_path, source))
    text = str(caught.value)
    # Python 3.14 rewords the division; the line is what matters.
    assert said in text.replace("division by zero", "float division by zero").replace("float float", "float")
    assert "next:" in text
    assert len(text) < 1500
    assert {name for name in set(sys.modules) - before if "no_such_package" in name} == set()


def test_missing_file_suggests_a_shipped_name(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="did you mean --reward center_line"):
        load_reward("centre_line")
    with pytest.raises(RewardError, match="cannot read"):
        load_reward(tmp_path)


def test_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.py"
    path.write_bytes("# größe\n".encode("latin-1"))
    with pytest.raises(RewardError, match=r"not UTF-8 text .byte 0xf6 at offset 4"):
        load_reward(path)


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "import time\n    time.sleep(1000)",
        "sum(iter(int, 1))",  # a loop in C: no signal and no trace function can stop it
        "while True:\n        try:\n            [].pop()\n        except:\n            pass",
    ],
)
def test_a_function_that_does_not_come_back_is_stopped(tmp_path: Path, body: str) -> None:
    source = f"def reward_function(params):\n    {body}\n    return 1.0\n"
    path = write(tmp_path, source)
    threads = threading.active_count()
    with pytest.raises(RewardError, match=r"longer than 0\.3 s .* at line [2-6]: "):
        check_deadline(source, path, synthetic_params(), limit_s=0.3)
    assert threading.active_count() == threads


def test_loading_has_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_module, "TIME_LIMIT_S", 0.3)
    with pytest.raises(RewardError, match="at line 1: `while True: pass`"):
        load_reward(write(tmp_path, "while True: pass\n"))


def test_the_time_limit_works_outside_the_main_thread(tmp_path: Path) -> None:
    path = write(tmp_path, "while True: pass\n")
    caught: list[BaseException] = []

    def work() -> None:
        try:
            check_deadline(path.read_text(encoding="utf-8"), path, synthetic_params(), limit_s=0.3)
        except RewardError as error:
            caught.append(error)

    thread = threading.Thread(target=work, name="deadline-test")
    thread.start()
    thread.join(timeout=60.0)
    assert len(caught) == 1


def test_an_error_in_training_carries_its_params_and_a_short_text(tmp_path: Path) -> None:
    source = "def reward_function(p):\n    if p['steps'] == 77:\n        raise RuntimeError('no')\n    return 1\n"
    reward = load_reward(write(tmp_path, source))
    params = {**synthetic_params()[0], "steps": 77}
    with pytest.raises(RewardError, match="RuntimeError: no at line 3") as caught:
        call_all(reward, [synthetic_params()[0], params])
    assert caught.value.params is params
    assert '"steps": 77' in str(caught.value)
    assert "waypoints" not in str(caught.value).replace("closest_waypoints", "")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_call_all_returns_one_reward_a_car(tmp_path: Path) -> None:
    reward = load_reward(returns(tmp_path, "params['steps'] / 2"))
    rewards = call_all(reward, [{"steps": k} for k in (4, 1, 3)])
    assert rewards.dtype == np.float64
    assert rewards.tolist() == [2.0, 0.5, 1.5]
    assert call_all(reward, []).shape == (0,)
