# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel answers when it refuses."""

from __future__ import annotations

import errno
import os
import re

_NUMBER = re.compile(r":? -\d+\s*$")


class KernelError(Exception):
    """The kernel refused an operation, or cannot be asked at all; ``str()`` is one clear line.

    ``errno`` is the kernel's number (0 where there is none, e.g. an answer that made no sense), ``text`` its own words
    (extended acknowledgement) or else :func:`os.strerror`'s, ``what`` the operation in words ("add endpoint 10.0.0.2").
    ``attribute`` is the offset of the attribute that was refused, counted from the message's header, where it was told.
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
        """Whether it failed because the very thing, or one that takes its place, is there already."""
        return self.errno == errno.EEXIST

    @property
    def absent(self) -> bool:
        """Whether it failed because the thing, its interface or its address is not there (any more).

        EINVAL is what the path manager answers for an endpoint that is not there, and only its text ("address not found")
        tells that from a malformed request.
        """
        if self.errno == errno.EINVAL:
            return "not found" in self.text
        return self.errno in (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL)

    @property
    def full(self) -> bool:
        """Whether the endpoint table is full (ERANGE; ENOSPC is kept for kernels to come)."""
        return self.errno in (errno.ERANGE, errno.ENOSPC)
