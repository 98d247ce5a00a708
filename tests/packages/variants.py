# SPDX-License-Identifier: GPL-2.0-or-later
"""Other packages made of the one that was built: a newer version of it, and one as large that is nobody's service."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .built import deb

# What a package with a service does when it is configured, but for the service: what starts with the service runs once.
_CONFIGURED = """\
#!/bin/sh
set -e
py3compile -p bystander /usr/lib/bystander
systemctl daemon-reload
/usr/bin/python3 -I -c 'import sys; sys.path.insert(0, "/usr/lib/bystander")
from nm_mptcp.cli import main; sys.exit(main(["apply", "--dry-run"]))' >/dev/null
"""

_REMOVED = """\
#!/bin/sh
set -e
py3clean -p bystander
"""


def newer(place: Path) -> Path:
    """The package, in a newer version."""
    with _unpacked() as unpacked:
        _edit(unpacked / "DEBIAN/control", r"^Version: ", "Version: 1:")
        return _packed(unpacked, place / "newer.deb")


def bystander(version: int, place: Path) -> Path:
    """A package with the same modules under another name, which dpkg, Python and systemd have as much work with."""
    with _unpacked() as unpacked:
        modules, control = unpacked / "usr/lib/nm-mptcp", unpacked / "DEBIAN/control"
        modules.rename(unpacked / "bystander")
        shutil.rmtree(unpacked / "usr")
        shutil.rmtree(unpacked / "etc")
        (unpacked / "usr/lib").mkdir(parents=True)
        (unpacked / "bystander").rename(unpacked / "usr/lib/bystander")
        for file in (unpacked / "DEBIAN").iterdir():
            if file != control:
                file.unlink()
        _edit(control, r"^Package: .*", "Package: bystander")
        _edit(control, r"^Version: .*", f"Version: {version}")
        for name, script in (("postinst", _CONFIGURED), ("prerm", _REMOVED)):
            (unpacked / "DEBIAN" / name).write_text(script)
            (unpacked / "DEBIAN" / name).chmod(0o755)
        return _packed(unpacked, place / f"bystander-{version}.deb")


@contextmanager
def _unpacked() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        unpacked = Path(scratch, "unpacked")
        subprocess.run(["dpkg-deb", "--raw-extract", deb(), unpacked], check=True)
        yield unpacked


def _edit(file: Path, what: str, with_: str) -> None:
    text, changed = re.subn(what, with_, file.read_text(), count=1, flags=re.MULTILINE)
    assert changed, f"no {what} in {file}"
    file.write_text(text)


def _packed(unpacked: Path, package: Path) -> Path:
    build = ["dpkg-deb", "--root-owner-group", "--build", unpacked, package]
    subprocess.run(build, check=True, capture_output=True)
    return package
