# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: whether all is good, something is held back, or nothing works."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping

from ..model.reasons import Reason, Why
from ..model.state import Kernel, NetworkManager, Owner, Path, State

#: Seconds after which a path that waits for something short (duplicate address detection, an activation) is held back.
PATIENCE = 10.0

#: A path that something is against, whatever its state is called. (A second link without a default route, a tunnel that is
#: no uplink, a profile that says disabled are ordinary; and a profile that cannot be read may only be somebody else's.)
_AGAINST = frozenset({Why.KEPT_LAST, Why.REFUSED, Why.NO_SLOT, Why.DAD_FAILED, Why.NO_CONNECTIVITY})

#: What is wrong with a path of which nothing gets anywhere.
LOST = frozenset({Why.NO_WAY, Why.NO_UPLINK})

#: What is waited for a moment only.
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
    """Whether the path waits for what takes a moment, so that it is held back if that is long past."""
    return path.reason.why in _SOON


def is_held_back(path: Path, waited: float | None) -> bool:
    """Whether a path is held back; ``waited``: seconds in this state, None where nobody knows."""
    return held_back(path.state.value, path.reason.why.rule_name, waited)


def held_back(state: str, rule: str, waited: float | None) -> bool:
    """The same by the names of the status document."""
    why = Why.of_rule(rule)
    if state == State.SUSPENDED.value or why in _AGAINST:
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
    """The verdict and its causes, a line each; of each path of a real link also how long it is as it is (s).

    ``troubles`` is what :func:`~nm_mptcp.policy.reachability.troubles` found.
    """
    known = list(paths)
    active = [path for path, _ in known if path.state is State.ACTIVE]
    causes = list(_troubles(kernel, networkmanager, bool(active), paused))
    if causes:
        return Verdict.NOT_WORKING, causes
    causes = [f"{path.interface} {path.address}: {path.reason}" for path, waited in known if is_held_back(path, waited)]
    troubled = {path.address: troubles[path.address] for path in active if path.address in troubles}
    causes += [
        f"{path.interface} {path.address}: {troubled[path.address]}" for path in active if path.address in troubled
    ]
    if trouble := networkmanager_trouble(networkmanager):
        causes.insert(0, f"{trouble}: paths stay as they are, and nothing becomes one")
    missing = sum(1 for path in active if path.endpoint_id is None)
    if missing:
        what = (
            "no path has its endpoint"
            if missing == len(active)
            else f"{missing} of {len(active)} paths have no endpoint"
        )
        theirs = all(path.owner is Owner.NETWORKMANAGER for path in active if path.endpoint_id is None)
        who = (
            "NetworkManager makes it when the connection comes up again"
            if theirs
            else "'nm-mptcp apply', or the service, makes it"
        )
        causes.insert(0, f"{what} in the kernel: {who}")
    lost = sum(1 for path in active if path.endpoint_id is None or _is_lost(troubled.get(path.address)))
    if lost and lost == len(active):
        return Verdict.NOT_WORKING, causes
    return (Verdict.HELD_BACK if causes else Verdict.GOOD), causes


def networkmanager_trouble(networkmanager: NetworkManager) -> str:
    """Why NetworkManager cannot be asked, "" where it can."""
    if networkmanager.silent:
        return "NetworkManager does not answer"
    return "" if networkmanager.running else "NetworkManager is not running"


def _is_lost(trouble: Reason | None) -> bool:
    return trouble is not None and trouble.why in LOST


def _troubles(kernel: Kernel, networkmanager: NetworkManager, active: bool, paused: bool) -> Iterator[str]:
    """What keeps everything from working."""
    if not kernel.path_manager:
        yield "this kernel has no MPTCP"
    elif not kernel.mptcp_enabled and not active:
        yield "MPTCP is off: 'sysctl -w net.mptcp.enabled=1' turns it on"
    elif kernel.path_manager != "kernel":
        yield (
            f"the path manager is '{kernel.path_manager}', which knows no endpoints:"
            " 'sysctl -w net.mptcp.pm_type=0' takes the kernel's for new connections"
        )
    trouble = networkmanager_trouble(networkmanager)
    if trouble and not active:
        yield trouble
    if paused:
        yield "'nm-mptcp clear' was called: nothing is made until 'nm-mptcp apply'"
