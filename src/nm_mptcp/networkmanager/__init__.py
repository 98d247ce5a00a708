# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager over D-Bus, as :class:`nm_mptcp.model.state.NetworkManager`."""
