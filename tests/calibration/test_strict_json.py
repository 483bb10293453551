"""JSON that is not exactly what was asked for is refused with file, key and value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import CalibrationError
from calibration.strict_json import MAX_CHARACTERS, number, pairs, parse, table, whole


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null]}', b'\xef\xbb\xbf{"a": [1, 2.5, null]}'])
def test_json(text: str | bytes) -> None:
    assert parse(text, where="f.json") == {"a": [1, 2.5, None]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "f.json is empty"),
        (" \n", "f.json is empty"),
        (b"\0" * 512, "f.json is empty (zeros)"),
        ('{"a": 1', "line 1"),
        ('{\n"a": 1,\n}', "line 3"),
        ("{'a': 1}", "not valid JSON"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity is not a JSON number"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' stands twice"),
        (b'{"a": "\xff"}', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("1" * 10_000, "not valid JSON"),
        (" " * MAX_CHARACTERS + "1", f"f.json is {MAX_CHARACTERS + 1} characters long"),
    ],
)
def test_what_is_not_json_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(CalibrationError) as caught:
        parse(text, where="f.json")
    assert words in caught.value.what and caught.value.what.startswith("f.json")
    assert caught.value.cause and caught.value.next_step


@given(st.binary(max_size=50) | st.text(max_size=50))
def test_nothing_else_is_ever_raised(text: str | bytes) -> None:
    try:
        parse(text, where="f.json")
    except CalibrationError as error:
        assert "f.json" in error.what


def test_a_table_has_exactly_its_keys() -> None:
    good = {"alpha": 1, "beta": None}
    assert table(good, ("alpha", "beta"), where="f.json") == good
    assert table({"alpha": 1}, ("alpha", "beta"), where="f.json", optional=("beta",)) == {"alpha": 1}
    for value, key, words in (
        ({**good, "alpa": 1}, "", ["unknown key alpa", "nearest known key is alpha", "known here: alpha, beta"]),
        ({**good, "zz": 1}, "in", ["unknown key in.zz", "known here"]),
        ({"alpha": 1}, "in", ["f.json: in.beta is missing"]),
        ([1], "", ["f.json: the top level is [1], it must be an object"]),
        (None, "in", ["in is null, it must be an object"]),
    ):
        with pytest.raises(CalibrationError) as caught:
            table(value, ("alpha", "beta"), where="f.json", key=key)
        assert all(word in str(caught.value) for word in words)
        assert caught.value.cause and caught.value.next_step


def test_numbers() -> None:
    assert number(3, where="f", key="k") == 3.0 and isinstance(number(3, where="f", key="k"), float)
    assert whole(-3, where="f", key="k") == -3
    assert pairs([[1, 2.5]], where="f", key="k") == ((1.0, 2.5),) and pairs([], where="f", key="k") == ()
    bad: list[tuple[Any, Any, str]] = [
        (number, True, "f: k is true, it must be a number"),
        (number, "1", 'f: k is "1", it must be a number'),
        (number, None, "k is null"),
        (number, float("inf"), "k is too large"),
        (number, 10**400, "k is too large"),
        (whole, 1.0, "k is 1.0, it must be a whole number"),
        (whole, False, "k is false"),
        (pairs, {}, "k is {}, it must be an array"),
        (pairs, [1], "k[0] is 1, it must be an array of two numbers"),
        (pairs, [[1, 2], [1]], "k[1] is [1], it must be"),
        (pairs, [[1, "x" * 100]], 'k[0][1] is "xxx'),
    ]
    for read, value, words in bad:
        with pytest.raises(CalibrationError) as caught:
            read(value, where="f", key="k")
        assert words in caught.value.what and len(caught.value.what) < 120
        assert caught.value.cause and caught.value.next_step
