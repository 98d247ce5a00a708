# SPDX-License-Identifier: GPL-2.0-or-later
"""The D-Bus side: what NetworkManager says, as :class:`nm_mptcp.model.state.NetworkManager`."""
