# SPDX-License-Identifier: GPL-2.0-or-later
"""The error of a request to the kernel."""

from __future__ import annotations

import errno
import os
import re

_NUMBER = re.compile(r":? -\d+\s*$")


class KernelError(Exception):
    """The kernel rejected a request, or could not be asked; ``str()`` is one line for users.

    ``errno`` is the kernel's number (0: none), ``text`` its message (extended acknowledgement) or else
    :func:`os.strerror`'s, ``what`` the operation in words ("add endpoint 10.0.0.2"). ``attribute`` is the offset of the
    rejected attribute from the message's header in bytes, None where it is not reported.
    """

    def __init__(self, number: int, what: str, text: str | None = None, *, attribute: int | None = None) -> None:
        self.errno = number
        self.what = what
        # "too many addresses or duplicate one: -17" - the number is in errno.
        self.text = _NUMBER.sub("", text or os.strerror(number)).strip().rstrip(".")
        self.attribute = attribute
        super().__init__(number, what, self.text)

    def __str__(self) -> str:
        name = errno.errorcode.get(self.errno)
        hint = ""
        if self.errno in (errno.EPERM, errno.EACCES):
            hint = " - run as root or with CAP_NET_ADMIN"
        return f"cannot {self.what}: {self.text}" + (f" ({name})" if name else "") + hint

    @property
    def exists(self) -> bool:
        """Whether it failed because the object, or one in its place, exists already."""
        return self.errno == errno.EEXIST

    @property
    def absent(self) -> bool:
        """Whether it failed because the object, its interface or its address does not exist (any more).

        For a missing endpoint the path manager answers EINVAL, and only the text ("address not found") distinguishes that
        from a malformed request.
        """
        if self.errno == errno.EINVAL:
            return "not found" in self.text
        return self.errno in (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL)

    @property
    def full(self) -> bool:
        """Whether the table of endpoints is full (ERANGE; ENOSPC in case a later kernel answers that)."""
        return self.errno in (errno.ERANGE, errno.ENOSPC)
