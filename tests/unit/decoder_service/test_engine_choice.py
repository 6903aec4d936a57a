"""Which engine `auto` is on which GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from decoder_service.engines.settings import EngineSettings
from decoder_service.service import create_engine


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [
        ("auto", None, "TransformersEngine"),
        ("auto", (7, 0), "TransformersEngine"),
        ("cuda:1", (7, 5), "TransformersEngine"),
        ("auto", (8, 0), "VllmEngine"),
        ("cuda:1", (9, 0), "VllmEngine"),
        ("cpu", (9, 0), "TransformersEngine"),
    ],
)
def test_vllm_is_for_gpus_with_bfloat16(
    device: str, capability: tuple[int, int] | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    engine = create_engine("auto", EngineSettings(Path("unused"), device=device))
    assert type(engine).__name__ == expected
