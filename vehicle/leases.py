"""The lease of the one operator: manual driving and calibration need it, and it ends unless it is renewed.

Pure: time is an argument. An expired lease never comes back to life, whatever the clock says later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vehicle.arming import Limits, fresh

LEASE_KINDS = ("manual", "calibration")


@dataclass(frozen=True)
class Lease:
    """`id` is told to its holder only; `renewed_s` is the time of the last sign of life."""

    id: str
    kind: str
    holder: str
    renewed_s: float


class Leases:
    """At most one lease, of one kind, for one holder: two people never steer one car."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lease: Lease | None = None
        self._granted = 0

    def current(self, now_s: float) -> Lease | None:
        """The valid lease. A lease that has expired, or was renewed in the future, is forgotten for good."""
        lease = self._lease
        if lease is not None and not fresh(now_s - lease.renewed_s, self._limits.lease_s, self._limits):
            self._lease = None
        return self._lease

    def grant(self, kind: str, holder: str, now_s: float) -> Lease | None:
        """A new lease, or None while another one is valid, even of the same holder.

        The number in the id makes it unique in this process, the microseconds among processes of one boot.
        """
        if self.current(now_s) is not None:
            return None
        self._granted += 1
        self._lease = Lease(f"{kind}-{self._granted}-{now_s * 1e6:.0f}", kind, holder, now_s)
        return self._lease

    def renew(self, lease_id: object, now_s: float) -> bool:
        """Whether this lease was valid, and is for another `Limits.lease_s` from now."""
        lease = self.current(now_s)
        if lease is None or lease.id != lease_id:
            return False
        self._lease = replace(lease, renewed_s=now_s)
        return True

    def end(self) -> None:
        """Forget the lease."""
        self._lease = None
