# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel counted since it started (or this network namespace did): fallbacks to TCP, and joins that failed."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Facts
from .finding import Finding, advice, good, not_applicable, warning

#: Failures of joins by our side, with what each means (kernel: net/mptcp/mib.h).
_JOINS = {
    "MPJoinSynTxCreatSkErr": "no socket could be made for it: memory, or a security module",
    "MPJoinSynTxBindErr": "its address was not there, or not usable yet: the endpoint came before the address",
    "MPJoinSynTxConnectErr": "there was no route from its address: rule or table was missing",
    "MPJoinSynAckHMacFailure": "the answer was not the server's: a load balancer sent it to another machine",
    "MPJoinAckHMacFailure": "a client's proof was wrong: it reached another machine than its connection",
    "MPJoinRejected": "the path manager refused a client's: its limits are too low",
}
#: Connections that spoke MPTCP at first and then went on as TCP.
_FALLBACKS = {
    "MPCapableFallbackACK": "the client's third packet came without MPTCP: something on the way took it out",
    "MPCapableDataFallback": "data came without MPTCP: something on the way took it out",
    "DssFallback": "data came without its mapping: something on the way joined or split packets",
    "DSSCorruptionFallback": "a mapping was wrong: something on the way rewrote data",
    "InfiniteMapRx": "the peer gave MPTCP up for a connection: a checksum was wrong there",
    "MD5SigFallback": "TCP-MD5 was asked for, which MPTCP does not have",
    "SimultConnectFallback": "both sides connected at once",
}

#: Up to this share of failures is what a network does now and then.
_SHARE = 0.05

_LATER = (
    "what is counted does not go away before the next boot: 'nstat -z MPTcpExt*' now and later tells whether it grows"
)


def joins(facts: Facts) -> Iterator[Finding]:
    """Additional subflows that failed."""
    have = facts.counters
    if "MPJoinSynAckRx" not in have:
        yield not_applicable("joins", "this kernel does not count")
        return
    failed = {name: have[name] for name in _JOINS if have.get(name)}
    if have.get("MPCapableSYNRX"):
        # Ordinary where clients come: no subflow can be made for a connection that no program has accepted yet
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
        yield not_applicable("joins", "none was tried so far")


def fallbacks(facts: Facts) -> Iterator[Finding]:
    """Connections that became TCP."""
    have = facts.counters
    if "MPCapableSYNACKRX" not in have:
        yield not_applicable("fallback", "this kernel does not count")
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
        words = f"{dropped} of {asked} connections came about only without MPTCP (MPCapableSYNTXDrop): it is dropped"
        yield warning("fallback", words, remedy=advice("find the network that drops it: nm-mptcp check --reach HOST"))
    elif not many:
        if asked or served:
            # A server without MPTCP is nothing bad.
            served_words = f", {served} clients came with MPTCP" if served else ""
            yield good(
                "fallback", f"{agreed} of {asked} servers spoke MPTCP{served_words}; few or none fell back later"
            )
        else:
            yield not_applicable("fallback", "no connection asked for MPTCP so far")
