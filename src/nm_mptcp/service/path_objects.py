# SPDX-License-Identifier: GPL-2.0-or-later
"""Our D-Bus objects: one for each path below ``/org/nm_mptcp1``, and the properties of that object itself.

Signals are rate-limited: changes within a tenth of a second are signalled together, the last state always.
``nm-mptcp-dbus(5)`` describes each property.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .. import __version__
from ..dbus.connection import Bus
from ..dbus.names import INTERFACE, PATH, PATH_INTERFACE, PATHS
from ..dbus.properties import Properties, Values, signatures, with_properties
from ..model.flags import names
from ..model.reasons import Reason
from ..model.record import Contents, Since
from ..model.state import Path, State
from ..report.health import PATIENCE, is_degraded, waits_shortly
from ..report.status import began, overall, priority, waited
from ..text import utf8_safe
from .interface import METHODS, NOTHING_YET, Service

if TYPE_CHECKING:
    from ..engine.reconciler import View

#: Seconds between two bursts of signals.
PAUSE = 0.1

#: The properties of ``org.nm_mptcp1.Path``.
PATH_PROPERTIES = {
    "Interface": ("s", "The network interface."),
    "Address": ("s", "The address."),
    "Profile": ("s", 'The connection\'s name, "" if there is none.'),
    "Uuid": ("s", 'The connection\'s UUID, "" if there is none.'),
    "Kind": ("s", "The kind of device."),
    "State": ("s", "active, waiting, suspended or excluded."),
    "Priority": ("s", 'regular or backup, "" for what is no path.'),
    "Reason": ("s", "Why, in words."),
    "Rule": ("s", "The name of the rule that decided."),
    "Since": ("t", "Since when, in microseconds since the epoch; 0 if unknown."),
    "Flags": ("as", "The endpoint's flags by name."),
    "FlagsFrom": ("s", "Where they come from: profile, config, kind or networkmanager."),
    "EndpointId": ("u", "The kernel's id of the endpoint, 0 if there is none."),
    "Owner": ("s", "The program that adds the endpoint: nm-mptcp, networkmanager or other."),
    "Table": ("u", "The routing table of this address, 0 if it has none."),
    "Gateway": ("s", 'The gateway of its default route, "" if there is none.'),
}


@with_properties(PATH_PROPERTIES)
class PathObject(Properties):
    """``org.nm_mptcp1.Path``: one address, whether it is a path, and why."""

    def __init__(self, values: Values) -> None:
        super().__init__(PATH_INTERFACE, values)


class Objects:
    """The objects on one bus connection.

    ``view`` returns the last decision, ``contents`` the record's contents, ``troubles`` why paths do not reach their
    destinations, ``paused`` whether Clear was called.
    """

    def __init__(
        self,
        bus: Bus,
        service: Service,
        view: Callable[[], View | None],
        contents: Callable[[], Contents],
        troubles: Callable[[], Mapping[str, Reason]],
        paused: Callable[[], bool],
    ) -> None:
        self._bus = bus
        self._service = service
        self._view = view
        self._contents = contents
        self._troubles = troubles
        self._paused = paused
        self._shown: dict[str, PathObject] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._published = -PAUSE
        bus.manage_objects(PATH)
        service.values = self._manager()
        bus.export(PATH, service)
        bus.answer(PATH, INTERFACE, signatures(METHODS), service.answer)
        self._publish()

    def changed(self) -> None:
        """Publish what may have changed now, or when the pause is over."""
        self._wait(max(0.0, self._published + PAUSE - time.monotonic()))

    def close(self) -> None:
        """Publish nothing any more: the connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._view = lambda: None

    def _wait(self, delay: float) -> None:
        """Publish after that time (s), or sooner if that is scheduled already."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay, self._publish)

    def _publish(self) -> None:
        self._timer = None
        view = self._view()
        if view is None or self._bus.lost.done():
            return
        loopback = {index for index, link in view.snapshot.kernel.links.items() if link.loopback}
        since = self._contents().since
        wanted = {
            object_path(path): path_values(path, since)
            for path in view.desired.paths
            if path.ifindex not in loopback and (path.profile or path.state is not State.EXCLUDED)
        }
        for gone in self._shown.keys() - wanted.keys():
            self._bus.unexport(gone, self._shown.pop(gone))
        for place, values in wanted.items():
            if place in self._shown:
                self._shown[place].update(values)
            else:
                self._shown[place] = PathObject(values)
                self._bus.export(place, self._shown[place])
        self._service.update(self._manager())
        self._published = time.monotonic()
        now = time.time()
        if any(waits_shortly(path) and not is_degraded(path, waited(path, since, now)) for path in view.desired.paths):
            self._wait(PATIENCE)  # then the path counts as degraded

    def _manager(self) -> Values:
        """The properties of ``/org/nm_mptcp1``."""
        view = self._view()
        if view is None:
            return NOTHING_YET
        kernel = view.snapshot.kernel
        found, problems = overall(
            view.snapshot, view.desired, self._contents(), self._troubles(), paused=self._paused(), now=time.time()
        )
        return {
            "Version": __version__,
            "State": found.value,
            "Problems": [utf8_safe(problem) for problem in problems],
            "Mode": view.mode.value,
            "ModeFrom": "runtime" if self._contents().mode else "configuration",
            "Paused": self._paused(),
            "NetworkManagerRunning": view.snapshot.networkmanager.running,
            "MptcpEnabled": kernel.mptcp_enabled,
            "PathManager": utf8_safe(kernel.path_manager),
            "EndpointsMax": kernel.endpoints_max,
            "EndpointsUsed": len(kernel.endpoints),
            "LimitSubflows": kernel.limits.subflows,
            "LimitAddAddrAccepted": kernel.limits.add_addr_accepted,
        }


def object_path(path: Path) -> str:
    """The object path of an address on an interface; the same after a restart of the service."""
    return f"{PATHS}/{path.ifindex}_{ipaddress.ip_address(path.address).packed.hex()}"


def path_values(path: Path, since: Mapping[str, Since]) -> Values:
    """The properties of a path's object."""
    known = began(path, since)
    return {
        "Interface": utf8_safe(path.interface),
        "Address": path.address,
        "Profile": utf8_safe(path.profile),
        "Uuid": utf8_safe(path.uuid),
        "Kind": utf8_safe(path.kind),
        "State": path.state.value,
        "Priority": priority(path) or "",
        "Reason": utf8_safe(str(path.reason)),
        "Rule": path.reason.why.rule_name,
        "Since": int(known.time * 1_000_000) if known else 0,
        "Flags": names(path.flags),
        "FlagsFrom": path.flags_from.value,
        "EndpointId": path.endpoint_id or 0,
        "Owner": path.owner.value,
        "Table": path.table or 0,
        "Gateway": path.gateway or "",
    }
