# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages that ``make deb rpm dist`` have built, of this version."""

from __future__ import annotations

from pathlib import Path

import pytest

from nm_mptcp import __version__

DIST = Path(__file__).parents[2] / "dist"


def built(pattern: str) -> Path:
    """The one of them that matches; skips where there is none."""
    found = sorted(DIST.glob(pattern))
    if not found:
        pytest.skip(f"dist/{pattern} is not built ('make deb rpm dist' does)")
    assert len(found) == 1, f"more than one of dist/{pattern}: 'rm -r dist' and build again"
    return found[0]


def deb() -> Path:
    return built(f"nm-mptcp_{__version__}-*_all.deb")


def rpm() -> Path:
    return built(f"nm-mptcp-{__version__}-*.noarch.rpm")


def source_rpm() -> Path:
    return built(f"nm-mptcp-{__version__}-*.src.rpm")


def sdist() -> Path:
    return built(f"nm_mptcp-{__version__}.tar.gz")


def wheel() -> Path:
    return built(f"nm_mptcp-{__version__}-*.whl")
