# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents of status, explain and check, their texts, and the remedies."""
