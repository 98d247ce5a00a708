# SPDX-License-Identifier: GPL-2.0-or-later
"""The README's first commands as a newcomer types them: on a Debian made anew, in a clone, with what the README asks for.

    sudo python3 -m tests.fresh [DISTRIBUTION] COMMAND...

Each command is run by a user who may use sudo, in a fresh clone of the last commit. The Debian is a folder, with the network
of this machine, since apt and pip fetch what is missing - from where this machine's own fetch it. All else is its own:
processes, mounts, control groups; nothing of it is left afterwards. Needs root, mmdebstrap and git.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .machine.archive import apt_settings, knows_debian, sources

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache"

#: What the README names, and the least that is a Debian.
PACKAGES = ("git", "make", "python3", "sudo")

#: Who types, and where the clone is.
USER = "newcomer"
CLONE = f"home/{USER}/nm-mptcp"

_ENTER = """\
set -eu
cd "$1"
root=$PWD
mount --bind "$root" "$root" # pivot_root wants a mount
cd "$root"
. "$2"
shift 2
for place do
    if [ -d "$place" ]; then mkdir -p ".$place"; else mkdir -p ".${place%/*}" && touch ".$place"; fi
    mount --bind "$place" ".$place"
    mount -o remount,bind,ro ".$place"
done
hostname fresh
pivot_root . .
umount -l .
# Not exec: the first process reaps orphans, as a shell does and su does not.
su - "$TYPIST" -c "$TYPED" && status=0 || status=$?
exit $status
"""


class Failed(Exception):
    """It cannot be done here; the text says why."""


def main() -> int:
    distribution, *commands = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        _demand()
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"fresh-{distribution}-") as scratch, _cgroup() as cgroup:
            begin = time.monotonic()
            place = Path(scratch, "root")
            local = _made(distribution, place)
            print(f"{distribution} is made ({time.monotonic() - begin:.0f} s)", flush=True)
            for command in commands:
                print(f"{USER}@fresh:~/nm-mptcp$ {command}", flush=True)
                if status := _typed(place, command, local, cgroup):
                    print(f"'{command}' failed on a fresh {distribution}: exit status {status}", file=sys.stderr)
                    return 1
            _keep_versions(place)
    except Failed as error:
        print(f"tests.fresh: {error}", file=sys.stderr)
        return 1
    return 0


def _demand() -> None:
    if os.geteuid() != 0:
        raise Failed("needs root (a Debian is made)")
    for program in ("mmdebstrap", "git", "unshare"):
        if shutil.which(program) is None:
            raise Failed(f"needs {program}")
    if not knows_debian():
        raise Failed("this machine's apt knows no Debian archive (main archive of origin Debian)")


def _made(distribution: str, place: Path) -> list[str]:
    """Make the Debian, with the user and the clone; gives the places of this machine that its pip fetches from."""
    settings = place.with_name("apt.conf")
    settings.write_text(apt_settings())
    _done(
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--quiet", f"--include={','.join(PACKAGES)}"),
        *(f"--aptopt={settings}", distribution, str(place), *sources(distribution)),
    )
    place.chmod(0o755)
    _done("chroot", str(place), "useradd", "--create-home", "--shell", "/bin/bash", USER)
    (place / "etc/sudoers.d/newcomer").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    (place / "etc/hosts").write_text(Path("/etc/hosts").read_text() + "127.0.1.1 fresh\n")
    settings_of_pip = _pip_settings()
    places = {each.rstrip("/") for each in re.findall(r"(?:file://|(?<![:\w/]))(/[^\s'\"]+)", settings_of_pip)}
    for number, file in enumerate(sorted(each for each in places if Path(each).is_file())):
        # Not where it is here: there a package may want to put its own.
        copy = f"/opt/of-pip/{number}"
        (place / "opt/of-pip").mkdir(exist_ok=True)
        shutil.copyfile(file, f"{place}{copy}")
        settings_of_pip = re.sub(rf"{re.escape(file)}(?![\w./-])", copy, settings_of_pip)
    (place / "etc/pip.conf").write_text(settings_of_pip)
    _done("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(place / CLONE))
    _done("chroot", str(place), "chown", "--recursive", f"{USER}:", f"/home/{USER}")
    folders = {Path(each) for each in places if Path(each).is_dir()}
    # The files of an index in a folder lie beside its pages.
    return ["/etc/resolv.conf", *sorted({str(each.parent if each.name == "simple" else each) for each in folders})]


def _pip_settings() -> str:
    """From where this machine's own pip fetches; a user's environment is lost on the way through sudo, so all in one file."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    sections: dict[str, dict[str, str]] = {}
    for line in told.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        sections.setdefault("global" if section == ":env:" else section, {})[key] = str(ast.literal_eval(value))
    lines = []
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{key} = {' '.join(value.split())}" for key, value in values.items())]
    return "\n".join([*lines, ""])


def _typed(place: Path, command: str, local: list[str], cgroup: Path) -> int:
    # The shell is in the new cgroup before `unshare` makes that the root of what is seen within.
    script = f'echo $$ >{cgroup}/cgroup.procs; exec unshare "$@"'
    done = subprocess.run(
        [
            *("sh", "-ec", script, "sh", "--mount", "--pid", "--ipc", "--uts", "--cgroup"),
            *("--fork", "--kill-child", "--propagation", "private"),
            *("sh", "-ec", _ENTER, "enter", str(place), str(ROOT / "tests/support/root.sh"), *local),
        ],
        stdin=subprocess.DEVNULL,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "TYPIST": USER,
            "TYPED": f"cd nm-mptcp && {command}",
        },
        check=False,
    )
    return done.returncode


@contextlib.contextmanager
def _cgroup() -> Iterator[Path]:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    above = next((Path(place) for _, place, kind, *_ in mounts if kind == "cgroup2"), None)
    if above is None:
        raise Failed("no cgroup2 file system is mounted")
    cgroup = above / f"nm-mptcp-fresh-{os.getpid()}"
    cgroup.mkdir()
    try:
        yield cgroup
    finally:
        end = time.monotonic() + 10
        while cgroup.exists() and time.monotonic() < end:
            for each in sorted([cgroup, *(p for p in cgroup.rglob("*") if p.is_dir())], reverse=True):
                with contextlib.suppress(OSError):  # its last process is not quite gone
                    each.rmdir()
            time.sleep(0.02)


def _keep_versions(place: Path) -> None:
    """What its runs saw, for `make versions`."""
    kept = place / CLONE / ".cache/versions"
    if kept.is_dir():
        shutil.copytree(kept, CACHE / "versions", dirs_exist_ok=True)


def _done(*command: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"{' '.join(command[:4])} ...: {done.stdout[-4000:].strip()}")


if __name__ == "__main__":
    sys.exit(main())
