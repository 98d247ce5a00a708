# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp watch``: links, subflows and their events, live. Nothing here writes to the kernel.

:mod:`.observer` (netlink) and :mod:`.bus_observer` (D-Bus) gather. Pure are :mod:`.snapshot` (the state, and the events between
two of them), :mod:`.events`, :mod:`.traffic` (bytes to rates), :mod:`.scene` (what is shown) and :mod:`.render` (as lines).
:mod:`.terminal` draws lines with rich and restores the terminal. These last two need rich, the others do not.
"""
