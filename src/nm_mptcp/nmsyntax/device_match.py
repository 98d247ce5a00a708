# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager's syntax to match devices (NetworkManager.conf(5), "Device List Format").

Pure. The rules are those of ``nm_match_spec_split`` and ``nm_match_spec_device`` (NetworkManager: ``nm-core-utils.c``).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from ..model.state import Device

_SEPARATORS = ",;"
_ESCAPES = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_SPACE = " \t\n\r\f\v"
_EXCEPT = "except:"
_MAC = re.compile(r"[0-9a-f]{1,2}([:-][0-9a-f]{1,2})+", re.IGNORECASE)


class Tag(enum.Enum):
    """The tag of a term, which says what it is compared with."""

    ANY = "*"
    TYPE = "type:"
    MAC = "mac:"
    INTERFACE = "interface-name:"
    DRIVER = "driver:"
    SUBCHANNELS = "s390-subchannels:"
    DHCP_PLUGIN = "dhcp-plugin:"
    PLAIN = ""  #: without a tag: an interface name or a MAC address


@dataclass(frozen=True, slots=True)
class Term:
    """One term: ``interface-name:wl*``, ``except:type:gsm``, ..."""

    tag: Tag
    value: str = ""
    negative: bool = False  #: ``except:``

    @classmethod
    def parse(cls, text: str) -> Self:
        """A term from its text, without separators and unescaped."""
        negative = _tagged(text, _EXCEPT)
        rest = text[len(_EXCEPT) :] if negative else text
        if rest == Tag.ANY.value:
            return cls(Tag.ANY, "", negative)
        for tag in Tag:
            if tag not in (Tag.ANY, Tag.PLAIN) and _tagged(rest, tag.value):
                return cls(tag, rest[len(tag.value) :], negative)
        return cls(Tag.PLAIN, rest, negative)

    def problem(self) -> str:
        """Why this term can never match, "" when it can. NetworkManager ignores such terms silently."""
        if self.tag is Tag.PLAIN and self.negative:
            return "'except:' needs a tag, such as 'except:interface-name:'"
        if self.tag is Tag.PLAIN and ":" in self.value and not _MAC.fullmatch(self.value):
            known = ", ".join(tag.value for tag in Tag if tag.value.endswith(":"))
            return f"unknown tag '{self.value.partition(':')[0]}:' (known: except:, {known})"
        if self.tag is Tag.MAC and not _MAC.fullmatch(self.value):
            return f"'{self.value}' is not a hardware address"
        if self.tag not in (Tag.ANY, Tag.PLAIN) and not self.value.lstrip("=~" if self.tag is Tag.INTERFACE else ""):
            return f"nothing after '{self.tag.value}'"
        return ""

    def matches(self, device: Device, *, dhcp_plugin: str = "") -> bool:
        """Whether the term matches ``device``, apart from ``except:``."""
        value = self.value
        match self.tag:
            case Tag.ANY:
                return True
            case Tag.TYPE:
                return bool(value) and value == device.type_name
            case Tag.MAC:
                return _same_mac(value, device.hardware_address)
            case Tag.INTERFACE:
                exact = value.startswith("=")
                name = value[1:] if value[:1] in ("=", "~") else value
                return name == device.interface or (not exact and _glob(name, device.interface))
            case Tag.DRIVER:
                if not device.driver:
                    return False
                driver, slash, version = value.rpartition("/")
                if not slash:
                    return value == device.driver
                # NetworkManager compares the driver by prefix: "e1000/*" matches e1000e as well.
                return device.driver.startswith(driver) and _glob(version, device.driver_version)
            case Tag.DHCP_PLUGIN:
                return bool(value) and value == dhcp_plugin
            case Tag.SUBCHANNELS:
                return False  # an s390 address, which Device does not have
            case Tag.PLAIN:
                if self.negative:
                    return False  # "except:" needs a tag
                return value == device.interface or _same_mac(value, device.hardware_address)


@dataclass(frozen=True, slots=True)
class DeviceMatch:
    """A list of terms: it matches where any positive term does and no ``except:`` term, in whatever order.

    A list of only ``except:`` terms matches all other devices; an empty list matches none.
    """

    terms: tuple[Term, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """A match from its text; raises :class:`ValueError` with the first term that can never match, and why."""
        match = cls.lenient(text)
        for term in match.terms:
            if problem := term.problem():
                raise ValueError(f"match '{text.strip()}': {problem}")
        if not match.terms:
            raise ValueError("match is empty: matches no device ('*' matches every one)")
        return match

    @classmethod
    def lenient(cls, text: str) -> Self:
        """A match from its text as NetworkManager parses it; terms that can never match are accepted."""
        return cls(tuple(Term.parse(word) for word in split(text)))

    def matches(self, device: Device, *, dhcp_plugin: str = "") -> bool:
        """Whether it matches ``device``; ``dhcp_plugin`` is NetworkManager's ``main.dhcp`` in force."""
        return decide([(term.negative, partial(term.matches, device, dhcp_plugin=dhcp_plugin)) for term in self.terms])


def decide(terms: Sequence[tuple[bool, Callable[[], bool]]]) -> bool:
    """The result of (negative, test) pairs, for devices as for ``[.config] enable`` (NetworkManager: ``_match_result``)."""
    if not terms:
        return False
    if any(test() for negative, test in terms if negative):
        return False
    positive = [test for negative, test in terms if not negative]
    return not positive or any(test() for test in positive)


def split(text: str) -> list[str]:
    r"""The terms of a list, split at commas and semicolons, unescaped (``\,`` ``\;`` ``\s`` ``\n`` ``\t`` ``\r`` ``\\``).

    White space around a term is dropped unless it is escaped; an unknown escape stays as written.
    """
    words: list[str] = []
    word: list[str] = []
    trailing = 0  # unescaped white space at the end of the word so far
    characters = iter(text)
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            if escaped in _ESCAPES:
                word.append(_ESCAPES[escaped])
            elif escaped and escaped in _SEPARATORS:
                word.append(escaped)
            elif escaped:
                word += ("\\", escaped)
            trailing = 0
        elif character in _SEPARATORS:
            _end(words, word, trailing)
            word, trailing = [], 0
        elif character in _SPACE:
            if word:
                word.append(character)
                trailing += 1
        else:
            word.append(character)
            trailing = 0
    _end(words, word, trailing)
    return words


def _end(words: list[str], word: list[str], trailing: int) -> None:
    text = "".join(word[: len(word) - trailing])
    if text:
        words.append(text)


def _tagged(text: str, tag: str) -> bool:
    """Whether ``text`` begins with a tag, in any case (``g_ascii_strncasecmp``)."""
    return text[: len(tag)].lower() == tag


def _glob(pattern: str, text: str) -> bool:
    """Only ``*`` and ``?``, without escapes or ranges (``g_pattern_match_simple``)."""
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _same_mac(one: str, other: str) -> bool:
    if not (_MAC.fullmatch(one) and _MAC.fullmatch(other)):
        return False
    return _octets(one) == _octets(other)


def _octets(mac: str) -> list[int]:
    return [int(octet, 16) for octet in re.split("[:-]", mac)]
