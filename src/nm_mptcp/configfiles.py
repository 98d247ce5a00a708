# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading ``nm-mptcp.conf``; errors name file, section, key and what is allowed."""

from __future__ import annotations

import configparser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .config import Config, Failover


class ConfigError(Exception):
    """A configuration file is no good; one line that says which, where in it, and what is allowed."""


#: Section -> key -> the values that it takes, all of which are words.
_KEYS = {"main": {"failover": Failover}}


def load(file: Path) -> Config:
    """The settings of a file. Raises :class:`ConfigError`."""
    parser = configparser.RawConfigParser(
        delimiters=("=",), comment_prefixes=("#",), default_section="", strict=True, empty_lines_in_values=False
    )
    try:
        parser.read_string(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text") from None
    except configparser.Error as error:
        raise ConfigError(f"{file}: {' '.join(error.message.split())}") from None
    values: dict[str, Any] = {}
    for section in parser.sections():
        if section not in _KEYS:
            raise ConfigError(f"{file}: [{section}]: no such section (there is {_list(_KEYS)})")
        for key, text in parser.items(section):
            kind = _KEYS[section].get(key)
            if kind is None:
                raise ConfigError(f"{file}: [{section}] {key}: no such key (there is {_list(_KEYS[section])})")
            try:
                values[key] = kind(text)
            except ValueError:
                raise ConfigError(f"{file}: [{section}] {key}={text}: must be {_list(kind, 'or')}") from None
    return Config(**values)


def _list(words: Iterable[str], last: str = "and") -> str:
    known = [str(word) for word in words]
    return f" {last} ".join([", ".join(known[:-1]), known[-1]]) if len(known) > 1 else known[0]
