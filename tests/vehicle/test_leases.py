"""One lease at a time; it ends to the microsecond, and never comes back."""

from __future__ import annotations

import math

import pytest

from vehicle.arming import Limits
from vehicle.leases import LEASE_KINDS, Leases

T = 64.0  # a power of two: 64.25 - 64 is exactly 0.25


def leases() -> Leases:
    return Leases(Limits(lease_s=0.25, future_s=0.005))


def test_a_lease_holds_until_its_age_is_passed() -> None:
    some = leases()
    lease = some.grant("manual", "a phone", T)
    assert lease is not None and (lease.kind, lease.holder, lease.renewed_s) == ("manual", "a phone", T)
    assert some.current(T) == lease and some.current(T + 0.25) == lease
    assert some.current(math.nextafter(T + 0.25, math.inf)) is None


def test_an_expired_lease_stays_expired_whatever_the_clock_says() -> None:
    some = leases()
    lease = some.grant("manual", "a phone", T)
    assert lease is not None and some.current(T + 1) is None
    assert some.current(T) is None and not some.renew(lease.id, T + 0.1)


def test_renewing_holds_it_longer() -> None:
    some = leases()
    lease = some.grant("calibration", "a laptop", T)
    assert lease is not None
    for step in range(1, 9):
        assert some.renew(lease.id, T + 0.25 * step)
    assert some.current(T + 2.25) is not None
    assert not some.renew(lease.id, T + 2.26)
    assert some.current(T + 2.25) is None


def test_only_the_holder_renews() -> None:
    some = leases()
    assert some.renew("manual-1", T) is False and some.renew(None, T) is False
    lease = some.grant("manual", "a phone", T)
    assert lease is not None
    assert not some.renew("manual-2", T + 0.2) and not some.renew(None, T + 0.2)
    assert some.current(T + 0.26) is None


@pytest.mark.parametrize("kind", LEASE_KINDS)
@pytest.mark.parametrize("holder", ["a phone", "a laptop"])
def test_nobody_takes_it_while_it_is_held(kind: str, holder: str) -> None:
    some = leases()
    first = some.grant("manual", "a phone", T)
    assert some.grant(kind, holder, T + 0.25) is None and some.current(T + 0.25) == first
    later = some.grant(kind, holder, T + 0.26)
    assert later is not None and first is not None and later.id != first.id and later.kind == kind


def test_ids_differ_even_at_the_same_moment() -> None:
    some = leases()
    ids = set()
    for _ in range(5):
        lease = some.grant("manual", "a phone", T)
        assert lease is not None
        ids.add(lease.id)
        some.end()
        assert some.current(T) is None
    assert ids == {f"manual-{n}-64000000" for n in range(1, 6)}
    again = leases().grant("manual", "a phone", T + 0.5)  # the gate was started again
    assert again is not None and again.id == "manual-1-64500000"


def test_a_lease_of_the_future_or_of_no_time_is_none() -> None:
    for now_s in (T - 0.006, math.nan, math.inf, -math.inf):
        some = leases()
        some.grant("manual", "a phone", T)
        assert some.current(now_s) is None
    some = leases()
    some.grant("manual", "a phone", T)
    assert some.current(T - 0.0049) is not None
    for now_s in (math.nan, math.inf):
        some = leases()
        some.grant("manual", "a phone", now_s)
        assert some.current(now_s) is None and some.current(T) is None


def test_ending_nothing_is_fine() -> None:
    leases().end()
