"""The slots' state machine: trials, what counts as a failure, falling back, barring; and its file."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vehicle import slot_state as s
from vehicle.errors import ConfigError, SlotError
from vehicle.slot_state import SlotState, Trial

A, B, C = "a" * 64, "b" * 64, "c" * 64


def fault_of(call: Callable[[], object]) -> str:
    with pytest.raises(SlotError) as caught:
        call()
    assert caught.value.fault in s.SLOT_FAULTS and caught.value.next_step
    return caught.value.fault


def on_trial(current: str | None = A, sha256: str = B, boots: int = 0) -> SlotState:
    state = s.activated(SlotState(current=current), sha256)
    for _ in range(boots):
        state = s.boot(state)
    return state


def test_the_first_model_is_tried_then_committed() -> None:
    state = s.activated(s.installed(SlotState(), A), A)
    assert state.driving == A and state.current is None and state.trial == Trial(A) and state.counter == 1
    state = s.proved_healthy(s.boot(state), A)
    assert (state.current, state.previous, state.trial) == (A, None, None)
    state = s.proved_healthy(s.boot(s.activated(state, B)), B)
    assert (state.current, state.previous, state.trial) == (B, A, None)


def test_two_reboots_in_trial_and_the_third_drive_is_the_old_model() -> None:
    state = on_trial()
    for boots in (1, 2):
        state = s.boot(state)
        assert state.driving == B and state.trial == Trial(B, boots)
    state = s.boot(state)
    assert state.driving == state.current == A and state.trial is None
    assert "2 drives" in state.barred[B]
    assert state.notice is not None and state.notice.reason == "trial_failed" and state.notice.sha256 == B
    assert fault_of(lambda: s.activated(state, B)) == "barred"
    assert fault_of(lambda: s.installed(state, B)) == "barred"
    again = s.activated(s.allowed(state, B), B)
    assert again.trial == Trial(B) and again.notice is None


def test_the_second_crash_ends_a_trial_at_once() -> None:
    # A crash in each of two drives; two crashes in one drive; a reboot, then a crash.
    one = s.crashed(s.boot(s.crashed(on_trial(boots=1), B)), B)
    two = s.crashed(s.crashed(on_trial(boots=1), B), B)
    three = s.crashed(s.boot(on_trial(boots=1)), B)
    for state in (one, two, three):
        assert state.trial is None and state.driving == A and "crashed" in state.barred[B]
    first = s.crashed(on_trial(boots=1), B)
    assert first.driving == B and first.trial is not None and first.trial.failures == 1


def test_a_drive_ended_on_purpose_counts_for_nothing_but_forgives_nothing() -> None:
    state = on_trial()
    for _ in range(5):
        state = s.ended(s.boot(state), B)
    assert state.trial == Trial(B)
    crashed = s.ended(s.crashed(on_trial(boots=1), B), B)
    assert crashed.trial is not None and crashed.trial.failures == 1
    assert s.ended(state, B).trial == Trial(B)


def test_reports_about_other_models_change_nothing() -> None:
    state = on_trial(boots=1)
    for transition in (s.proved_healthy, s.crashed, s.ended):
        assert transition(state, A) == state and transition(state, C) == state
        assert transition(SlotState(current=A), A) == SlotState(current=A)


def test_choosing_the_trial_again_does_not_reset_it_and_choosing_the_current_one_ends_it() -> None:
    state = on_trial(boots=1)
    assert s.activated(state, B) == state
    assert s.activated(state, A) == SlotState(current=A)
    assert s.activated(state, C).trial == Trial(C)


def test_a_first_model_that_fails_leaves_none() -> None:
    state = s.boot(on_trial(None, A, boots=2))
    assert state.driving is None and A in state.barred


def test_a_previous_model_that_fails_its_second_trial_is_no_way_back() -> None:
    state = s.activated(SlotState(current=A, previous=B), B)
    state = s.boot(s.boot(s.boot(state)))
    assert (state.driving, state.previous) == (A, None) and B in state.barred


def test_roll_back() -> None:
    assert s.rolled_back(on_trial(boots=1)) == SlotState(current=A)
    there = s.rolled_back(SlotState(current=B, previous=A))
    assert (there.current, there.previous) == (A, B)
    assert s.rolled_back(there) == SlotState(current=B, previous=A)
    for state, words in (
        (SlotState(), "no model is active"),
        (SlotState(current=A), "the first"),
        (on_trial(None, A), "on trial"),
    ):
        with pytest.raises(SlotError, match=words) as caught:
            s.rolled_back(state)
        assert caught.value.fault == "no_previous"


def test_remove() -> None:
    state = s.activated(SlotState(current=A, previous=B), C)
    for sha256, role in ((A, "current"), (C, "trial")):
        with pytest.raises(SlotError, match=role) as caught:
            s.removed(state, sha256)
        assert caught.value.fault == "in_use"
    assert s.removed(state, B).previous is None
    assert s.removed(state, "d" * 64) == state


def test_damage_falls_to_the_next_best() -> None:
    state = s.activated(SlotState(current=A, previous=B), C)
    state = s.damaged(state, C, "bits")
    assert state.driving == A and state.notice is not None and state.notice.what == "bits" and not state.barred
    state = s.damaged(state, A, "bits")
    assert (state.driving, state.previous) == (B, None)
    state = s.damaged(state, B, "bits")
    assert state.driving is None
    assert s.damaged(SlotState(current=A, previous=B), B, "bits").previous is None
    assert s.damaged(state, C, "other") == state


# --- the file


def test_the_file_goes_round_and_is_strict() -> None:
    state = s.boot(s.crashed(on_trial(boots=1), B))
    assert SlotState.from_json(state.to_json()) == state
    good = json.loads(state.to_json())
    changes: list[dict[str, object]] = [
        {"current": "../../etc"}, {"current": "A" * 64}, {"current": B}, {"previous": A}, {"barred": {B: "x"}},
        {"barred": {"x": "y"}}, {"counter": -1}, {"counter": True}, {"trial": {"sha256": B}}, {"version": 2},
        {"format": "x"}, {"more": 1}, {"trial": {"sha256": B, "boots": -1, "crashes": 0}}, {"barred": [B]},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(ConfigError):
            SlotState.from_json(json.dumps({**good, **change}))
    for text in ("", "{", "[]", "{}", "null", state.to_json()[: len(state.to_json()) // 2]):
        with pytest.raises(ConfigError):
            SlotState.from_json(text)


EVENTS = ("installed", "activated", "boot", "proved_healthy", "crashed", "ended", "damaged", "rolled_back", "removed",
          "allowed")  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.sampled_from((A, B, C))), max_size=40))
def test_whatever_happens_the_state_is_sound(events: list[tuple[str, str]]) -> None:
    """Only a proof of health makes a model current, no barred one drives, and a trial begins at most twice unproved."""
    state, begun = SlotState(), 0
    for event, sha256 in events:
        before = state
        try:
            if event in ("boot", "rolled_back"):
                state = getattr(s, event)(state)
            elif event == "damaged":
                state = s.damaged(state, sha256, "bits")
            else:
                state = getattr(s, event)(state, sha256)
        except SlotError:
            assert state is before
            continue
        assert SlotState.from_json(state.to_json()) == state  # also checks the roles
        if state.current != before.current:
            proved = event == "proved_healthy" and before.trial is not None and before.trial.sha256 == state.current
            back = event in ("rolled_back", "damaged") and state.current == before.previous
            assert proved or back
        assert state.driving not in state.barred
        if state.trial is None or before.trial is None or state.trial.sha256 != before.trial.sha256:
            begun = 0
        begun += event == "boot" and state.trial is not None
        begun -= event == "ended" and state.trial != before.trial
        assert begun <= s.MAX_FAILED_TRIALS
