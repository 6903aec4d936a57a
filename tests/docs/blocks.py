"""The fenced blocks of README.md and docs/, and what their info strings say about them.

```bash                        run in the page's shell, as a reader would, one block after the other
```bash serves                 stays in the foreground: the first one starts the services that all pages use
```bash no-run: needs a GPU    not run here, but checked: programs, flags, files, targets, extras, values
```yaml helm-values NAME       values of the chart, rendered; commands of the page may name the file
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = frozenset(("bash", "sh", "console"))
PROGRAMS = frozenset(("python", "javascript"))
SHOWN = frozenset(("", "text", "json", "yaml", "toml", "proto", "go", "java", "mermaid"))
_FENCE = re.compile(r"(\s*)```(\w*) *(.*)")


@dataclass(frozen=True, slots=True)
class Block:
    """One block; `line` is that of its fence. `mark` is the info string's second word, `reason` its rest."""

    page: str
    line: int
    language: str
    mark: str
    reason: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in COMMANDS | PROGRAMS and not self.mark


def pages() -> list[Path]:
    """README.md first, then everything below docs/ by name."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(path: Path) -> list[Block]:
    """Raises ValueError for a block that is not closed, or indented: its text would not be what is shown."""
    page = str(path.relative_to(ROOT))
    found: list[Block] = []
    inside: list[str] | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.fullmatch(line)
        if fence is None:
            if inside is not None:
                inside.append(line)
        elif inside is None:
            if fence[1]:
                raise ValueError(f"{page}:{number}: an indented block")
            mark, _, reason = fence[3].partition(" ")
            found.append(Block(page, number, fence[2], mark.rstrip(":"), reason.strip(), ""))
            inside = []
        else:
            head = found.pop()
            text = "\n".join(inside) + "\n"
            found.append(Block(head.page, head.line, head.language, head.mark, head.reason, text))
            inside = None
    if inside is not None:
        raise ValueError(f"{page}: the last block is not closed")
    return found


def all_blocks() -> list[Block]:
    return [block for path in pages() for block in blocks_of(path)]
