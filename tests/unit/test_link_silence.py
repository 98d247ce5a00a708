# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts on silent links, and how long one that was silent several times counts as silent."""

from __future__ import annotations

from nm_mptcp.engine.flap_damping import EARLIEST_RETURN
from nm_mptcp.engine.link_silence import LinkSilence
from nm_mptcp.model.state import Family, Place, Silence

WIFI, LTE = Place(Family.IPV4, 2), Place(Family.IPV4, 3)
SUSPECTED, CERTAIN = Silence(False, "a peer"), Silence(True, "a peer")


def watching(now: float = 100.0) -> LinkSilence:
    silence = LinkSilence()
    silence.watch({WIFI, LTE}, now)
    return silence


def test_a_verdict_counts_until_it_is_taken_back() -> None:
    silence = watching()
    assert silence.set(WIFI, SUSPECTED, 101.0)
    assert silence.silences(101.0) == {WIFI: SUSPECTED}
    assert silence.set(WIFI, CERTAIN, 102.0)
    assert not silence.set(WIFI, CERTAIN, 103.0)
    assert silence.silences(200.0) == {WIFI: CERTAIN}
    assert silence.set(WIFI, None, 200.0)
    assert silence.silences(200.0) == {}
    assert not silence.set(WIFI, None, 201.0)


def test_a_suspicion_that_is_taken_back_at_once_counts_for_a_moment() -> None:
    silence = watching()
    silence.set(WIFI, SUSPECTED, 101.0)
    silence.set(WIFI, None, 101.1)
    assert silence.silences(101.1) == {WIFI: SUSPECTED}
    assert silence.next_due(101.1) == 101.0 + EARLIEST_RETURN
    assert silence.silences(101.0 + EARLIEST_RETURN) == {}


def test_a_link_that_is_silent_again_and_again_counts_as_silent_in_between() -> None:
    silence, held = watching(), 0.0
    for number in range(50):
        now = 101.0 + number
        silence.set(WIFI, CERTAIN, now)
        silence.set(WIFI, None, now + 0.5)
        held += bool(silence.silences(now + 0.99))
    assert held >= 48


def test_what_is_not_watched_is_not_silent() -> None:
    silence = watching()
    silence.set(WIFI, CERTAIN, 101.0)
    silence.watch({LTE}, 102.0)
    assert silence.silences(102.0) == {}
    assert not silence.silences(102.0)
    silence.watch({WIFI, LTE}, 103.0)
    assert silence.silences(103.0) == {}


def test_after_a_sleep_nothing_is_known() -> None:
    silence = watching()
    silence.set(WIFI, CERTAIN, 101.0)
    silence.forget()
    assert silence.silences(101.0) == {}
    assert silence.next_due(101.0) is None


def test_what_a_tunnel_is_led_around_is_not_damped() -> None:
    silence = LinkSilence()
    silence.watch(set(), 100.0, {WIFI})
    for number in range(20):
        assert silence.lead({WIFI: CERTAIN})
        assert not silence.lead({WIFI: CERTAIN})
        assert silence.silences(101.0 + number) == {WIFI: CERTAIN}
        assert silence.lead({})
        assert silence.silences(101.0 + number) == {}
    assert silence.next_due(200.0) is None


def test_a_tunnel_is_led_around_nothing_but_what_is_below_it() -> None:
    silence = LinkSilence()
    silence.watch({WIFI}, 100.0, {WIFI, LTE})
    silence.lead({WIFI: CERTAIN, LTE: CERTAIN})
    silence.watch({WIFI}, 101.0, {LTE})
    assert silence.silences(101.0) == {LTE: CERTAIN}
    silence.forget()
    assert silence.silences(101.0) == {}
