# SPDX-License-Identifier: GPL-2.0-or-later
"""What shells offer for a command line that is being typed, and what a person gets who takes it: Tab, and Enter."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import shutil
import subprocess
import tempfile
import termios
import time
from collections.abc import Mapping
from pathlib import Path

COMPLETIONS = Path(__file__).parents[2] / "packaging" / "completions"
FILES = {"bash": "nm-mptcp.bash", "zsh": "_nm-mptcp", "fish": "nm-mptcp.fish"}

#: Seconds that a shell may take.
_PATIENCE = 20.0

_BASH = """
source {file}
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
compopt() {{ :; }}  # there is no completion in progress
_nm_mptcp
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

# All that is added ends in compadd; with -O, -A and -D it only computes.
_ZSH = """
PS1= PS2=
unsetopt prompt_cr prompt_sp
fpath=({folder} $fpath)
autoload -Uz compinit && compinit -u -D
compadd() {{
    local -a found
    [[ ${{argv[(I)-[OAD]]}} -gt 0 ]] || {{
        builtin compadd -O found "$@"
        print -rl -- $found >>{offers}
    }}
    builtin compadd "$@"
}}
ended() {{ : >{ended} }}
comppostfuncs=(ended)
"""


def offers(shell: str, line: str, environment: Mapping[str, str] | None = None) -> set[str]:
    """The words that the shell offers for the last word of this line, as they are."""
    given = {**os.environ, **(environment or {})}
    file = shlex.quote(str(COMPLETIONS / FILES[shell]))
    if shell == "zsh":
        return _zsh_offers(line, given)
    if shell == "bash":
        words = shlex.split(line) + ([""] if line.endswith(" ") else [])
        command = ["bash", "--norc", "-c", _BASH.format(file=file, words=shlex.join(words))]
    else:
        command = ["fish", "--no-config", "-c", f"source {file}; complete -C {shlex.quote(line)}"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return {word.partition("\t")[0] for word in done.stdout.splitlines()} - {""}


def _zsh_offers(line: str, environment: Mapping[str, str]) -> set[str]:
    with tempfile.TemporaryDirectory() as scratch:
        found, ended = Path(scratch, "offers"), Path(scratch, "ended")
        found.touch()
        start = _ZSH.format(folder=COMPLETIONS, offers=found, ended=ended)
        with Terminal(["zsh", "-f", "-i"], environment, scratch, start) as terminal:
            terminal.type(f"{line}\t")
            terminal.wait(ended)
        return {word.removesuffix("=") for word in found.read_text().splitlines()} - {""}


def taken(shell: str, typed: str, environment: Mapping[str, str], folder: Path) -> list[str]:
    """The arguments that ``nm-mptcp`` gets when a person types this (with Tabs in it) and then Enter."""
    file = shlex.quote(str(COMPLETIONS / FILES[shell]))
    arguments, ended = folder / "arguments", folder / "ended"
    arguments.unlink(missing_ok=True)
    ended.unlink(missing_ok=True)
    start = {
        "bash": f"source {file}\nbind 'set bell-style none'",
        "zsh": _ZSH.format(folder=COMPLETIONS, offers="/dev/null", ended="/dev/null"),
        "fish": f"source {file}",
    }[shell]
    if shell == "fish":
        start += f"\nfunction nm-mptcp; printf '%s\\0' $argv >{arguments}; touch {ended}; end"
    else:
        start += f"\nnm-mptcp() {{ printf '%s\\0' \"$@\" >{arguments}; : >{ended}; }}"
    options = {"bash": ["--norc", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config", "-i"]}[shell]
    with Terminal([shell, *options], environment, str(folder), start) as terminal:
        terminal.type(f"{typed}\r")
        terminal.wait(ended)
    return arguments.read_bytes().decode().split("\0")[:-1]


class Terminal:
    """An interactive shell on a terminal of its own, ready to be typed into; its folder is where it writes."""

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: str, start: str) -> None:
        script, ready = Path(folder, "start"), Path(folder, "ready")
        script.write_text(f"{start}\n")
        ready.unlink(missing_ok=True)
        self.written = b""
        self._master, slave = pty.openpty()
        self._popen = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "dumb", "HOME": folder, **environment},
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.type(f"source {shlex.quote(str(script))}; touch {shlex.quote(str(ready))}\r")
        self.wait(ready)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        """Press these."""
        os.write(self._master, keys.encode())

    def wait(self, file: Path) -> None:
        """Until the shell has made that file."""
        deadline = time.monotonic() + _PATIENCE
        while not file.exists():
            if select.select([self._master], [], [], 0.02)[0]:
                self.written += os.read(self._master, 1 << 16)
            assert time.monotonic() < deadline, self.written.decode(errors="replace")[-2000:]


def there(shell: str) -> bool:
    """Whether this machine has that shell."""
    return shutil.which(shell) is not None
