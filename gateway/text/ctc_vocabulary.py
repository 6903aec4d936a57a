"""The special tokens that follow the byte-pair ranks in the vocabulary of the CTC branch, in id order.

The order is part of the checkpoint format: ids are given by position after the last rank.
"""

from __future__ import annotations

_LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg "
    "lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so "
    "af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue "
    "minnan wuyu dialect zh/en en/zh"
)
_EVENTS = "ASR AED SER Speech /Speech BGM /BGM Laughter /Laughter Applause /Applause"
_EMOTIONS = "HAPPY SAD ANGRY NEUTRAL"
_TASKS = "translate transcribe startoflm startofprev nospeech notimestamps"
_NUM_RESERVED = 50
_NUM_TIMESTAMPS = 1501
_TIMESTAMP_STEP_S = 0.02


def special_tokens() -> list[str]:
    """All 1,679 special tokens of the published vocabulary, first to last."""
    names = ["endoftext", "startoftranscript"]
    for group in (_LANGUAGES, _EVENTS, _EMOTIONS, _TASKS):
        names += group.split()
    names += [f"SPECIAL_TOKEN_{i}" for i in range(1, _NUM_RESERVED + 1)]
    names += [f"{i * _TIMESTAMP_STEP_S:.2f}" for i in range(_NUM_TIMESTAMPS)]
    return [f"<|{name}|>" for name in names]
