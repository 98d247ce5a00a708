# SPDX-License-Identifier: GPL-2.0-or-later
"""The sysctl ``rp_filter`` of interfaces: whether packets are dropped whose answer would leave by another interface.

Source: kernel ``Documentation/networking/ip-sysctl.rst``. The kernel uses the greater one of an interface's value and that of
``conf/all``.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from ..model.state import Family, Link, ReversePathSetting
from . import sysctl
from .errors import KernelError

_STRICT, _LOOSE = "1", "2"


class ReversePathFilters:
    """Reads and writes the settings; no event reports a change."""

    def __init__(self) -> None:
        self._depends: tuple[object, ...] = ()
        self._strict: frozenset[int] = frozenset()

    def strict(self, links: Mapping[int, Link], egress: Mapping[Family, object], *, afresh: bool) -> frozenset[int]:
        """The links (ifindexes) whose own value is strict; none while nothing can be a tunnel (``egress`` is empty).

        They are read again when links or the egress changed, and if ``afresh``.
        """
        if not egress:
            self._depends, self._strict = (), frozenset()
        elif afresh or not self._depends or self._depends[0] is not links or self._depends[1] is not egress:
            self._depends = (links, egress)
            self._strict = frozenset(
                link.index for link in links.values() if not link.loopback and sysctl.read(_path(link.name)) == _STRICT
            )
        return self._strict

    def write(self, setting: ReversePathSetting) -> None:
        """Set it where it still has the opposite value. Raises :class:`KernelError`: EEXIST where it is no longer strict."""
        path = _path(setting.name)
        before, after = (_STRICT, _LOOSE) if setting.loose else (_LOOSE, _STRICT)
        self._depends = ()
        if sysctl.read(path) == before:
            sysctl.write(path, after)
        elif setting.loose:
            raise KernelError(errno.EEXIST, f"set the sysctl {path} to {after}", "somebody else has set it")


def _path(name: str) -> str:
    return sysctl.interface("ipv4", name, "rp_filter")
