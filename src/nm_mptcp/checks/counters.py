# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's counters since boot (or of this network namespace): fallbacks to TCP, and failed joins."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import SystemFacts
from .finding import Finding, advice, good, not_applicable, warning

#: Failures of joins on this side, and their meaning (kernel: net/mptcp/mib.h).
_JOINS = {
    "MPJoinSynTxCreatSkErr": "no socket could be created: memory, or a security module",
    "MPJoinSynTxBindErr": "its address was missing or not usable yet: the endpoint was added before the address",
    "MPJoinSynTxConnectErr": "no route from its address: a rule or table was missing",
    "MPJoinSynAckHMacFailure": "the answer was not the server's: a load balancer selected another machine",
    "MPJoinAckHMacFailure": "a client's HMAC was wrong: a load balancer selected another machine",
    "MPJoinRejected": "the path manager rejected a client's: the limits are too low",
}
#: Connections that began as MPTCP and fell back to TCP.
_FALLBACKS = {
    "MPCapableFallbackACK": "the client's third packet had no MPTCP option: a middlebox removed it",
    "MPCapableDataFallback": "data had no MPTCP option: a middlebox removed it",
    "DssFallback": "data had no mapping: a middlebox merged or split packets",
    "DSSCorruptionFallback": "a mapping was wrong: a middlebox changed data",
    "InfiniteMapRx": "the peer fell back: a checksum was wrong there",
    "MD5SigFallback": "TCP-MD5 was requested, which MPTCP does not support",
    "SimultConnectFallback": "both sides connected at once",
}

#: A share of failures up to this is normal for a network.
_SHARE = 0.05

_LATER = "the counters last until reboot: compare 'nstat -z MPTcpExt*' now and later"


def joins(facts: SystemFacts) -> Iterator[Finding]:
    """Joins that failed."""
    have = facts.counters
    if "MPJoinSynAckRx" not in have:
        yield not_applicable("joins", "this kernel has no such counter")
        return
    failed = {name: have[name] for name in _JOINS if have.get(name)}
    if have.get("MPCapableSYNRX"):
        # Normal for a server: no subflow can be created for a connection that no program has accepted yet
        # (mptcp_subflow_create_socket).
        failed.pop("MPJoinSynTxCreatSkErr", None)
    sent = have.get("MPJoinSynTx", 0)
    answered = have["MPJoinSynAckRx"]
    tried = (sent or answered) + have.get("MPJoinSynTxCreatSkErr", 0) + have.get("MPJoinSynTxBindErr", 0)
    tried += have.get("MPJoinSynRx", 0)
    words = f"{answered} of {sent} joins were answered" if "MPJoinSynTx" in have else f"{answered} joins were answered"
    if sum(failed.values()) > _SHARE * tried:
        for name, number in failed.items():
            yield warning("joins", f"{number} failed ({name}): {_JOINS[name]}", remedy=advice(_LATER))
    elif tried:
        yield good("joins", words)
    else:
        yield not_applicable("joins", "no join so far")


def fallbacks(facts: SystemFacts) -> Iterator[Finding]:
    """Connections that fell back to TCP."""
    have = facts.counters
    if "MPCapableSYNACKRX" not in have:
        yield not_applicable("fallback", "this kernel has no such counter")
        return
    asked, agreed = have.get("MPCapableSYNTX", 0), have["MPCapableSYNACKRX"]
    served = have.get("MPCapableSYNRX", 0)
    failed = {name: have[name] for name in _FALLBACKS if have.get(name)}
    many = sum(failed.values()) > _SHARE * (agreed + served)
    if many:
        for name, number in failed.items():
            yield warning("fallback", f"{number} fell back to TCP ({name}): {_FALLBACKS[name]}", remedy=advice(_LATER))
    dropped = have.get("MPCapableSYNTXDrop", 0)
    if dropped > _SHARE * asked:
        words = (
            f"{dropped} of {asked} connections succeeded only without MPTCP (MPCapableSYNTXDrop): a network drops it"
        )
        yield warning("fallback", words, remedy=advice("'nm-mptcp check --reach HOST' finds the network"))
    elif not many:
        if asked or served:
            # Servers without MPTCP are normal.
            served_text = f", {served} clients used MPTCP" if served else ""
            yield good(
                "fallback", f"{agreed} of {asked} servers accepted MPTCP{served_text}; few or no fallbacks later"
            )
        else:
            yield not_applicable("fallback", "no MPTCP connection so far")
