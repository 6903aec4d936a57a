"""What tells a command line that makes no sense from a command that failed."""

from __future__ import annotations


class UsageError(Exception):
    """The command is refused before it does anything; its exit code is 2, as that of argparse."""
