# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp watch``: what happens on links and subflows, as it happens. Nothing here writes anything in the kernel.

:mod:`.observer` gathers (netlink, D-Bus); the others are pure: :mod:`.snapshot` (what there is, and what two looks differ in),
:mod:`.events` (what happened), :mod:`.traffic` (bytes to rates), :mod:`.scene` (what is to be shown) and
:mod:`.render` (as lines). :mod:`.terminal` puts lines on a terminal and leaves it as it was.
"""
