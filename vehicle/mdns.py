"""The car's name on the local network: ``hotlap.local``, and a service that lists of cars find. Optional.

Where zeroconf is missing, or the network lets nobody announce anything, the console runs all the same, at its address.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

from vehicle.console_facts import addresses

SERVICE = "_hotlap._tcp.local."
RESOLVE_TIMEOUT_S = 3.0


def host_name(name: str) -> str:
    """The host of a car's name: "Red 5" is found at ``red-5.local``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "hotlap"


class Announcement:
    """The announcement of one console, until `close`. `error` says why there is none.

    Args:
        where: IPv4 addresses; by default those of this computer.
    """

    def __init__(self, name: str, port: int, where: Sequence[str] | None = None) -> None:
        self.error = ""
        self._zeroconf = None
        found = list(addresses() if where is None else where)
        try:
            from zeroconf import Error as ZeroconfError
            from zeroconf import IPVersion, ServiceInfo, Zeroconf
        except ImportError as error:
            self.error = f"zeroconf is not installed ({error})"
            return
        if not found:
            self.error = "this computer has no address yet"
            return
        host = host_name(name)
        info = ServiceInfo(
            SERVICE,
            f"{host}.{SERVICE}",
            port=port,
            addresses=[socket.inet_aton(address) for address in found],
            server=f"{host}.local.",
            properties={"path": "/", "name": name[:60]},
        )
        zeroconf = None
        try:
            zeroconf = Zeroconf(ip_version=IPVersion.V4Only)
            zeroconf.register_service(info, allow_name_change=True, cooperating_responders=True)
            self._zeroconf = zeroconf
        except (OSError, ZeroconfError, TimeoutError) as error:
            self.error = f"{type(error).__name__}: {error}"
            if zeroconf is not None:
                zeroconf.close()

    def close(self) -> None:
        """Take it back."""
        if self._zeroconf is not None:
            self._zeroconf.unregister_all_services()
            self._zeroconf.close()
            self._zeroconf = None


def resolve(host: str, timeout_s: float = RESOLVE_TIMEOUT_S) -> str | None:
    """The IPv4 address of a car's ``NAME.local``, asked for by multicast; None where none answers.

    For computers whose own resolver knows nothing of such names.
    """
    try:
        from zeroconf import IPVersion, Zeroconf
    except ImportError:
        return None
    try:
        zeroconf = Zeroconf(ip_version=IPVersion.V4Only)
    except OSError:  # a network without multicast
        return None
    try:
        name = host.lower().rstrip(".").removesuffix(".local")
        info = zeroconf.get_service_info(SERVICE, f"{name}.{SERVICE}", timeout=round(1e3 * timeout_s))
        found = info.parsed_addresses(IPVersion.V4Only) if info is not None else []
        return found[0] if found else None
    finally:
        zeroconf.close()
