"""What the generated pages have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTICE = "<!-- Made by scripts/generate_docs.py: run `make docs` instead of editing. -->"


def cell(text: str) -> str:
    """One line that may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return [*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows), ""]


def page(lines: Iterable[str]) -> str:
    """The text of a file: no blank line follows another."""
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-1]):
            kept.append(line)
    return "\n".join(kept).strip() + "\n"
