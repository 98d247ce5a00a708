# SPDX-License-Identifier: GPL-2.0-or-later
"""Which links are poor, by samples of their subflows: a table, and how long it takes."""

from __future__ import annotations

import pytest

from nm_mptcp.engine.link_quality import LinkQuality, Sample, sample
from nm_mptcp.model.state import Family, Place

from .test_silence_evidence import LTE, PLACES, WIFI, C, W, tcp

GOOD = Sample(0.04, 0.03)
WIFI6 = Place(Family.IPV6, 2)


def after(seconds: float, wifi: Sample, lte: Sample = GOOD, quality: LinkQuality | None = None) -> LinkQuality:
    """What is known when it has been so for so long."""
    quality = quality or LinkQuality()
    begin = 0.0 if not quality.poor else 1000.0
    for number in range(int(seconds) + 1):
        quality.update({WIFI: wifi, LTE: lte}, begin + number)
    return quality


@pytest.mark.parametrize(
    ("wifi", "lte", "poor"),
    [
        pytest.param(Sample(0.6, 0.03), GOOD, True, id="slow"),
        pytest.param(Sample(0.2, 0.01), GOOD, False, id="slower than at best, but quick"),
        pytest.param(Sample(0.6, 0.58), GOOD, False, id="a long way, as always"),
        pytest.param(Sample(0.6, 0.03), Sample(0.5, 0.4), False, id="the other is as slow"),
        pytest.param(Sample(0.6, 0.03), Sample(0.04, 0.03, 100, 10), False, id="the other loses packets"),
        pytest.param(Sample(0.04, 0.03, 100, 8), GOOD, True, id="it loses packets"),
        pytest.param(Sample(0.04, 0.03, 100, 4), GOOD, False, id="few"),
        pytest.param(Sample(0.04, 0.03, 10, 5), GOOD, False, id="of too few to tell"),
    ],
)
def test_a_link_is_poor(wifi: Sample, lte: Sample, poor: bool) -> None:
    assert (WIFI in after(5, wifi, lte).poor) is poor


def test_it_has_to_last() -> None:
    slow = Sample(0.6, 0.03)
    assert not after(2, slow).poor
    assert after(3, slow).poor
    quality = after(2, slow)
    quality.update({WIFI: GOOD, LTE: GOOD}, 3.0)
    quality.update({WIFI: slow, LTE: GOOD}, 4.0)
    assert not quality.poor


def test_it_is_well_again_after_a_while() -> None:
    quality = after(5, Sample(0.6, 0.03))
    assert after(9, GOOD, quality=quality).poor
    assert not after(10, GOOD, quality=quality).poor


def test_without_a_sample_it_stays_as_it_is() -> None:
    quality = after(5, Sample(0.6, 0.03))
    assert not quality.update({}, 2000.0)
    assert quality.poor
    quality.forget()
    assert not quality.poor


def test_another_family_is_no_alternative() -> None:
    quality = LinkQuality()
    for now in range(10):
        quality.update({WIFI: Sample(0.6, 0.03), WIFI6: GOOD}, float(now))
    assert not quality.poor


def test_a_sample_is_made_of_the_subflows_in_use() -> None:
    idle = tcp(W, token=7, trip=0.02, shortest=0.02, acked=5, sent=10, local_port=1)
    before = tcp(W, token=8, trip=0.3, shortest=0.03, acked=100, sent=50, resent=1, local_port=2)
    now = before._replace(acked=300, sent=90, resent=4)
    plain = tcp(W, trip=9.0, local_port=3)
    other = tcp(C, token=7, trip=0.05, shortest=0.05, local_port=4)
    known = {each.key: each for each in (idle, before)}
    assert sample([idle, now, plain, other], PLACES, known) == {
        WIFI: Sample(0.3, 0.02, 40, 3),
        LTE: Sample(0.05, 0.05),
    }
