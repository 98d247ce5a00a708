# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of another Debian than this one, unpacked and not installed; where from is what this machine's apt says."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "packages"


def unpacked(distribution: str, package: str) -> Path:
    """The folder that holds this package's files; fetched once. RuntimeError with words when it cannot be had."""
    place = CACHE / f"{distribution}-{package}"
    if not place.exists():
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise RuntimeError(f"only root on a Debian can fetch {package} of {distribution}")
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                    _fetch(distribution, package, Path(scratch)).rename(place)
    return place


def _fetch(distribution: str, package: str, scratch: Path) -> Path:
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "sources.list").write_text(f"deb {_archive()} {distribution} main\n")
    settings = {
        "Dir::State": scratch / "state",
        "Dir::State::status": "/dev/null",  # what is installed here would be a newer version that nobody has
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    for command in (["update"], ["download", package]):
        _run(["apt-get", "-qq", *options, *command], scratch)
    (archive,) = scratch.glob("*.deb")
    _run(["dpkg-deb", "-x", archive.name, "files"], scratch)
    return scratch / "files"


def _archive() -> str:
    told = _run(["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages"], Path("/"))
    places = [line.partition("|")[2] for line in told.splitlines() if line.startswith("Debian|")]
    if not places:
        raise RuntimeError("this machine's apt knows no Debian archive")
    return places[0]


def _run(command: list[str], place: Path) -> str:
    done = subprocess.run(command, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} {command[-1]}: {done.stderr.strip()[-500:]}")
    return done.stdout
