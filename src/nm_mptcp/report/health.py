# SPDX-License-Identifier: GPL-2.0-or-later
"""The overall state, as a pure function: good, degraded or not working, and why."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping

from ..model.reasons import Reason, Why
from ..model.state import Kernel, NetworkManager, Owner, Path, State

#: Seconds that a path may wait for something short (duplicate address detection, an activation) before it counts as degraded.
PATIENCE = 10.0

#: Rules by which a path is degraded in any state. (Not those of ordinary set-ups: a second link without a default route, a
#: tunnel, a disabled profile. Nor an unreadable profile, which may be another user's.)
_DEGRADED = frozenset({Why.KEPT_LAST, Why.REFUSED, Why.NO_SLOT, Why.DAD_FAILED, Why.NO_CONNECTIVITY})

#: Troubles by which no packet of a path gets anywhere.
LOST = frozenset({Why.NO_WAY, Why.NO_UPLINK})

#: Rules by which a path waits for a moment only.
_SOON = frozenset({Why.ACTIVATING, Why.TENTATIVE, Why.ADDRESS_AWAY, Why.WAITS_FOR_NETWORKMANAGER})


class Verdict(enum.StrEnum):
    """The overall state; the values are those of ``state`` in the status document and of ``State`` on D-Bus."""

    GOOD = "good"
    HELD_BACK = "held-back"
    NOT_WORKING = "not-working"

    @property
    def status(self) -> int:
        """The exit status of ``nm-mptcp status``: 0 good, 1 degraded, 2 not working."""
        return list(Verdict).index(self)


def waits_shortly(path: Path) -> bool:
    """Whether the path waits for something short, so that it is degraded when that takes too long."""
    return path.reason.why in _SOON


def is_degraded(path: Path, waited: float | None) -> bool:
    """Whether a path is degraded; ``waited``: seconds in this state, None where unknown."""
    return degraded(path.state.value, path.reason.why.rule_name, waited)


def degraded(state: str, rule: str, waited: float | None) -> bool:
    """:func:`is_degraded` by ``state`` and ``rule`` of the status document."""
    why = Why.of_rule(rule)
    if state == State.SUSPENDED.value or why in _DEGRADED:
        return True
    return why in _SOON and waited is not None and waited > PATIENCE


def verdict(
    kernel: Kernel,
    networkmanager: NetworkManager,
    paths: Iterable[tuple[Path, float | None]],
    *,
    paused: bool,
    troubles: Mapping[str, Reason] = {},
) -> tuple[Verdict, list[str]]:
    """The overall state, and its causes, a line each.

    ``paths``: those of all links but the loopback, each with the seconds that it has its state (None: unknown);
    ``troubles`` is the result of :func:`~nm_mptcp.policy.reachability.troubles`.
    """
    known = list(paths)
    active = [path for path, _ in known if path.state is State.ACTIVE]
    causes = list(_troubles(kernel, networkmanager, bool(active), paused))
    if causes:
        return Verdict.NOT_WORKING, causes
    causes = [f"{path.interface} {path.address}: {path.reason}" for path, waited in known if is_degraded(path, waited)]
    troubled = {path.address: troubles[path.address] for path in active if path.address in troubles}
    causes += [
        f"{path.interface} {path.address}: {troubled[path.address]}" for path in active if path.address in troubled
    ]
    if trouble := networkmanager_trouble(networkmanager):
        causes.insert(0, f"{trouble}: current paths are kept, and no new ones are added")
    missing = sum(1 for path in active if _lacks_endpoint(path))
    if missing:
        what = (
            "no path has its endpoint"
            if missing == len(active)
            else f"{missing} of {len(active)} paths have no endpoint"
        )
        theirs = all(path.owner is Owner.NETWORKMANAGER for path in active if _lacks_endpoint(path))
        who = "NetworkManager adds it at the next activation" if theirs else "'nm-mptcp apply', or the service, adds it"
        causes.insert(0, f"{what} in the kernel: {who}")
    lost = sum(1 for path in active if _lacks_endpoint(path) or _is_lost(troubled.get(path.address)))
    if lost and lost == len(active):
        return Verdict.NOT_WORKING, causes
    return (Verdict.HELD_BACK if causes else Verdict.GOOD), causes


def _lacks_endpoint(path: Path) -> bool:
    """Whether somebody is to add a path's endpoint; another program's may be there, for another interface (a trouble)."""
    return path.endpoint_id is None and path.owner is not Owner.OTHER


def networkmanager_trouble(networkmanager: NetworkManager) -> str:
    """Why there is no answer from NetworkManager, "" where there is."""
    if networkmanager.silent:
        return "NetworkManager does not answer"
    return "" if networkmanager.running else "NetworkManager is not running"


def _is_lost(trouble: Reason | None) -> bool:
    return trouble is not None and trouble.why in LOST


def _troubles(kernel: Kernel, networkmanager: NetworkManager, active: bool, paused: bool) -> Iterator[str]:
    """Why no path works."""
    if not kernel.path_manager:
        yield "this kernel has no MPTCP"
    elif not kernel.mptcp_enabled and not active:
        yield "MPTCP is disabled: 'sysctl -w net.mptcp.enabled=1' enables it"
    elif kernel.path_manager != "kernel":
        yield (
            f"the path manager is '{kernel.path_manager}', which does not use endpoints:"
            " 'sysctl -w net.mptcp.pm_type=0' selects the kernel's for new connections"
        )
    trouble = networkmanager_trouble(networkmanager)
    if trouble and not active:
        yield trouble
    if paused:
        yield "'nm-mptcp clear' is in effect until 'nm-mptcp apply'"
