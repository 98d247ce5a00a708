# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp watch``: what happens on links and subflows, as it happens. Nothing here writes anything in the kernel.

:mod:`.observer` gathers (netlink, D-Bus); the others are pure: :mod:`.looks` (what there is, and what two looks differ in),
:mod:`.happenings` (what happened), :mod:`.traffic` (bytes to rates), :mod:`.scene` (what is to be shown) and
:mod:`.drawing` (as lines). :mod:`.terminal` puts lines on a terminal and leaves it as it was.
"""
