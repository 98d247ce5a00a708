# SPDX-License-Identifier: GPL-2.0-or-later
"""The sysctl ``ignore_routes_with_linkdown`` of interfaces: whether routes by a link without carrier are passed over.

Source: kernel ``Documentation/networking/ip-sysctl.rst``.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from ..model.state import Family, Link, LinkdownSetting
from . import sysctl
from .errors import KernelError


class LinkdownSysctls:
    """Reads and writes the settings; no event reports a change, so values are cached until they are to be read afresh."""

    def __init__(self) -> None:
        self._known: Mapping[tuple[Family, int], bool] = {}
        #: families in which new interfaces begin with the setting
        self.default = frozenset(family for family in Family if (sysctl.read(_path(family, "default")) or "0") != "0")

    def read(self, links: Mapping[int, Link], *, afresh: bool) -> Mapping[tuple[Family, int], bool]:
        """The setting by family and ifindex, of all links but loopback; one that cannot be read is left out."""
        known = {} if afresh else self._known
        result = {}
        for ifindex, link in links.items():
            if link.loopback:
                continue
            for family in Family:
                value = known.get((family, ifindex))
                if value is None:
                    text = sysctl.read(_path(family, link.name))
                    value = None if text is None else text != "0"
                if value is not None:
                    result[family, ifindex] = value
        self._known = result
        return result

    def write(self, setting: LinkdownSetting) -> None:
        """Set it. Raises :class:`KernelError`: EEXIST where it is so already, since then somebody else has set it."""
        path = _path(setting.family, setting.name)
        now = (sysctl.read(path) or "0") != "0"
        if now != setting.ignored:
            sysctl.write(path, int(setting.ignored))
        self._known = {**self._known, (setting.family, setting.ifindex): setting.ignored}
        if now == setting.ignored:
            raise KernelError(errno.EEXIST, f"set the sysctl {path} to {setting.ignored:d}", "somebody else has set it")


def _path(family: Family, name: str) -> str:
    return sysctl.interface("ipv4" if family is Family.IPV4 else "ipv6", name, "ignore_routes_with_linkdown")
