# SPDX-License-Identifier: GPL-2.0-or-later
"""Log lines for each changed path and each change of the VPN guard, without repetition."""

from __future__ import annotations

import logging
import time

from ..journal import Event, log_fields
from ..model.flags import names
from ..model.record import GuardRecord, guarded
from ..model.state import Desired, Path, State
from ..text import printable

_log = logging.getLogger(__name__)

_Place = tuple[str, int]


class EventLog:
    """Compares each decision with the previous one; ``silent`` (a dry run): without logging.

    :attr:`guard` is the record of the VPN guard: since when it is in force, and what it closed.
    """

    def __init__(self, guard: GuardRecord | None, *, silent: bool) -> None:
        self.guard = guard
        self._silent = silent
        self._shown: dict[_Place, tuple[object, ...]] = {}
        self._last_id: dict[_Place, int] = {}  #: the id of each address's last endpoint
        self._closed = (0, 0)

    def paths(self, desired: Desired) -> None:
        """Log the paths whose state, reason or flags changed, and removed addresses; not those that were never a path."""
        now: dict[_Place, tuple[object, ...]] = {}
        for path in desired.paths:
            place = (path.address, path.ifindex)
            if path.state is State.EXCLUDED and place not in self._shown:
                continue
            if path.endpoint_id is not None:
                self._last_id[place] = path.endpoint_id
            # The reason of an active path may change without any effect.
            active, excluded = path.state is State.ACTIVE, path.state is State.EXCLUDED
            now[place] = (path.state, None if active else path.reason.why, None if excluded else path.flags)
            if not self._silent and now[place] != self._shown.get(place) and self._is_worth_a_line(path):
                _log.info("%s", _line(path), extra=_fields(path, self._last_id.get(place)))
        if not self._silent:
            for address, ifindex in self._shown.keys() - now.keys():
                last_id = self._last_id.pop((address, ifindex), None)
                if self._shown[address, ifindex][0] is not State.EXCLUDED:
                    extra = log_fields(Event.PATH_GONE, address=address, endpoint_id=last_id)
                    _log.info("%s is gone", address, extra=extra)
        self._shown = now

    def tunnels(self, desired: Desired) -> None:
        """Update which tunnels are guarded, and log a change."""
        tunnels = {family: tunnel.name for family, tunnel in desired.tunnels.items()}
        before, self.guard = self.guard, guarded(self.guard, tunnels, time.time())
        if (
            self._silent
            or self.guard is None
            or (before is not None and before.tunnels == self.guard.tunnels and before.until == self.guard.until)
        ):
            return
        if tunnels:
            words = ", ".join(f"all {family.label} traffic leaves by {name}" for family, name in tunnels.items())
            extra = log_fields(Event.VPN_GUARD, state="on", tunnels=",".join(tunnels.values()))
            _log.info("VPN guard: %s; no subflow may bypass it", words, extra=extra)
        else:
            _log.info("VPN guard: no full tunnel any more", extra=log_fields(Event.VPN_GUARD, state="off"))

    def closed(self, subflows: int, connections: int) -> None:
        """Record and log what the guard closed since the last call; the arguments are totals since the start.

        ``connections`` are those that had no other subflow.
        """
        new = (subflows - self._closed[0], connections - self._closed[1])
        self._closed = (subflows, connections)
        if self.guard is not None and any(new):
            self.guard = self.guard.counted(*new)
            extra = log_fields(Event.VPN_GUARD, cut_subflows=new[0], cut_connections=new[1])
            _log.info("VPN guard: %d subflows closed, %d connections had no other", *new, extra=extra)

    def _is_worth_a_line(self, path: Path) -> bool:
        """Whether to log a change: not that of an excluded address from one reason to another (``status`` shows it)."""
        return path.state is not State.EXCLUDED or self._shown[path.address, path.ifindex][0] is not State.EXCLUDED


def _line(path: Path) -> str:
    flags = f" [{' '.join(names(path.flags))}]" if path.flags and path.state is not State.EXCLUDED else ""
    profile = f" ({printable(path.profile)!r})" if path.profile else ""
    return f"{path.interface} {path.address}{profile}: {path.state}{flags}: {path.reason}"


def _fields(path: Path, endpoint_id: int | None) -> dict[str, object]:
    """The journal's fields for a path; ``endpoint_id`` is that of its last endpoint."""
    return log_fields(
        Event[f"PATH_{path.state.name}"],
        interface=path.interface,
        address=path.address,
        profile=path.profile or None,
        uuid=path.uuid or None,
        state=path.state.value,
        rule=path.reason.why.rule_name,
        reason=path.reason,
        flags=",".join(names(path.flags)) or None,
        endpoint_id=endpoint_id,
        owner=path.owner.value,
        table=path.table,
    )
