# SPDX-License-Identifier: GPL-2.0-or-later
"""The nouns, all frozen: what the kernel and NetworkManager have, what is wanted, and the reasons for it."""
