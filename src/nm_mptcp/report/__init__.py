# SPDX-License-Identifier: GPL-2.0-or-later
"""What people read: the status and explain documents, their text, and the remedies."""
