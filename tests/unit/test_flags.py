# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from nm_mptcp.model.flags import EndpointFlag, ProfileFlag, endpoint_flags, names, parse_endpoint_flags, profile_flags


@pytest.mark.parametrize(
    ("profile", "endpoint"),
    [
        (0x02, ""),  # no implied subflow
        (0x06, ""),
        (0x0A, ""),
        (0x10, "signal"),
        (0x20, "subflow"),
        (0x22, "subflow"),
        (0x40, "backup"),
        (0x62, "subflow backup"),
        (0x80, "fullmesh"),
        (0x122, "subflow laminar"),
        (0x1FE, "signal subflow backup fullmesh laminar"),
    ],
)
def test_a_profile_means_exactly_these_endpoint_flags(profile: int, endpoint: str) -> None:
    assert " ".join(names(endpoint_flags(ProfileFlag(profile)))) == endpoint


@pytest.mark.parametrize("bits", range(0x40))
def test_endpoint_flags_come_back_from_their_profile_flags_but_for_implicit(bits: int) -> None:
    flags = EndpointFlag(bits)
    assert endpoint_flags(profile_flags(flags)) == flags & ~EndpointFlag.IMPLICIT


def test_names_come_back_as_flags() -> None:
    flags = EndpointFlag(0x3F)
    assert parse_endpoint_flags(names(flags)) == flags


def test_an_unknown_bit_is_shown_as_a_number() -> None:
    assert names(EndpointFlag(0x82)) == ["subflow", "0x80"]


def test_an_unknown_word_is_named_with_what_is_allowed() -> None:
    with pytest.raises(
        ValueError, match=r"unknown endpoint flag 'subfow' \(allowed: signal, subflow, backup, fullmesh"
    ):
        parse_endpoint_flags(["subflow", "subfow"])
