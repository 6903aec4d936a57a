"""Removes the control tokens and training artefacts of the published models from a transcript, nothing else.

The published implementations delete everything in angle or square brackets and all leading
punctuation, which loses quotations, prices and whatever else was really said.
"""

from __future__ import annotations

import re

_THINK_BLOCK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
# <|im_end|>, <|nospeech|>, <|zh|>, <|/Speech|>, <|12.34|>: no written text has this shape.
_CONTROL = re.compile(r"<\|[A-Za-z0-9_./]{1,40}\|>")
# What noisy training transcripts left behind; as whole words only, so that "/silent" survives.
_ARTEFACT = re.compile(
    r"</?think>|</strong>|\[(?:breath|noise)\]|/sil(?!\w)|(?<!\w)(?:endofpatch|endofbreak|FFFF)(?!\w)"
)
_SPACE = re.compile(r"\s+")


def clean_transcript(text: str) -> str:
    """`text` without known specials, white space collapsed."""
    text = _THINK_BLOCK.sub(" ", text)
    text = _CONTROL.sub("", text)
    text = _ARTEFACT.sub(" ", text)
    return _SPACE.sub(" ", text.replace("\ufffd", "")).strip()
