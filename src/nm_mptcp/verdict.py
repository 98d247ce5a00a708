# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: whether all is good, something is held back, or nothing works; what ``status`` ends with."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any

from .reasons import Why


class Verdict(enum.StrEnum):
    """How things stand; :attr:`status` is the exit status of ``nm-mptcp status``."""

    GOOD = "good"
    HELD_BACK = "held-back"
    NOT_WORKING = "not-working"

    @property
    def status(self) -> int:
        """0 all paths are good, 1 something is held back, 2 it does not work."""
        return list(Verdict).index(self)


#: Seconds after which a path that waits for something short (duplicate address detection, an activation) is held back.
PATIENCE = 10.0


def _names(*whys: Why) -> frozenset[str]:
    return frozenset(rule_name(why) for why in whys)


def rule_name(why: Why) -> str:
    """The name of a rule in the status document."""
    return why.name.lower().replace("_", "-")


#: A path that something is against, whatever its state is called. (A second link without a default route, a tunnel that is
#: no uplink, a profile that says disabled are ordinary; and a profile that cannot be read may only be somebody else's.)
_AGAINST = _names(Why.KEPT_LAST, Why.REFUSED, Why.NO_SLOT, Why.DAD_FAILED, Why.NO_CONNECTIVITY)

#: What is waited for a moment only.
_SOON = _names(Why.ACTIVATING, Why.TENTATIVE, Why.WAITS_FOR_NETWORKMANAGER)


def is_held_back(path: Mapping[str, Any], waited: float | None) -> bool:
    """Whether a path of the status document is held back; ``waited``: seconds in this state, None where nobody knows."""
    if path["state"] == "suspended" or path["rule"] in _AGAINST:
        return True
    return path["rule"] in _SOON and waited is not None and waited > PATIENCE


def verdict(*, troubles: Iterable[str], held: Iterable[str], active: int, missing: int) -> tuple[Verdict, list[str]]:
    """The verdict and its causes, a line each.

    ``troubles`` keep everything from working, ``held`` are paths that something is against; of ``active`` paths
    ``missing`` have no endpoint in the kernel.
    """
    causes = [*troubles]
    if causes:
        return Verdict.NOT_WORKING, causes
    causes = [*held]
    if missing:
        what = "no path has its endpoint" if missing == active else f"{missing} of {active} paths have no endpoint"
        causes.insert(0, f"{what} in the kernel: 'nm-mptcp apply', or the service, makes it")
        return (Verdict.NOT_WORKING if missing == active else Verdict.HELD_BACK), causes
    return (Verdict.HELD_BACK if causes else Verdict.GOOD), causes
