# SPDX-License-Identifier: GPL-2.0-or-later
"""The messages of writes, as pyroute2's classes.

Imported at the first write, by :mod:`.access` at once; what only reads, as ``nm-mptcp check`` does beside the service, does
without.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator


@contextlib.contextmanager
def _without_init(name: str) -> Iterator[None]:
    """Import modules of a package without the package's own ``__init__``; a later import of the package is complete.

    pyroute2's ``__init__`` imports its database, command line, HTTP server and test tools. Without it the import takes 43
    instead of 248 ms, for which a boot would wait, and the process has 27.6 instead of 38.8 MB.
    """
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        yield
        return
    package = types.ModuleType(name)
    package.__spec__, package.__path__ = spec, spec.submodule_search_locations
    sys.modules[name] = package
    try:
        yield
    finally:
        del sys.modules[name]


try:
    with _without_init("pyroute2"):
        from pyroute2.netlink import genlmsg, nla
        from pyroute2.netlink.rtnl.fibmsg import fibmsg
        from pyroute2.netlink.rtnl.ndmsg import ndmsg
except (ImportError, AttributeError):  # modules that need the package's __init__; or no pyroute2, which raises here
    from pyroute2.netlink import genlmsg, nla
    from pyroute2.netlink.rtnl.fibmsg import fibmsg
    from pyroute2.netlink.rtnl.ndmsg import ndmsg

__all__ = ["fibmsg", "ndmsg", "path_manager_message"]


class _address(nla):  # type: ignore[misc]
    prefix = "MPTCP_PM_ADDR_ATTR_"
    nla_map = (
        ("MPTCP_PM_ADDR_ATTR_UNSPEC", "none"),
        ("MPTCP_PM_ADDR_ATTR_FAMILY", "uint16"),
        ("MPTCP_PM_ADDR_ATTR_ID", "uint8"),
        ("MPTCP_PM_ADDR_ATTR_ADDR4", "ip4addr"),
        ("MPTCP_PM_ADDR_ATTR_ADDR6", "ip6addr"),
        ("MPTCP_PM_ADDR_ATTR_PORT", "uint16"),
        ("MPTCP_PM_ADDR_ATTR_FLAGS", "uint32"),
        ("MPTCP_PM_ADDR_ATTR_IF_IDX", "int32"),
    )


class path_manager_message(genlmsg):  # type: ignore[misc]
    """A message to ``mptcp_pm``."""

    prefix = "MPTCP_PM_ATTR_"
    nla_map = (
        ("MPTCP_PM_ATTR_UNSPEC", "none"),
        ("MPTCP_PM_ATTR_ADDR", "address"),
        ("MPTCP_PM_ATTR_RCV_ADD_ADDRS", "uint32"),
        ("MPTCP_PM_ATTR_SUBFLOWS", "uint32"),
    )
    address = _address
