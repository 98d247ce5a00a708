# SPDX-License-Identifier: GPL-2.0-or-later
"""Becoming another user, without PAM: its session would move the program into a control group of its own."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass


class UserError(Exception):
    """There is no such user; the message is one line."""


@dataclass(frozen=True, slots=True)
class User:
    """An account."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str

    @property
    def variables(self) -> dict[str, str]:
        """What tells a program whose it is (environ(7))."""
        return {"HOME": self.home, "SHELL": self.shell or "/bin/sh", "USER": self.name, "LOGNAME": self.name}


def user(word: str) -> User:
    """The account of this name or number. Raises :class:`UserError`."""
    try:
        entry = pwd.getpwnam(word)
    except KeyError:
        try:
            entry = pwd.getpwuid(int(word))
        except (KeyError, ValueError, OverflowError):
            raise UserError(f"there is no user {word!r}") from None
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell)


def become(user: User) -> None:
    """Give up root's rights for those of this user: groups, group, user, and with that all capabilities. Raises OSError."""
    os.initgroups(user.name, user.gid)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
