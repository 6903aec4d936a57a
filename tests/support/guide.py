"""The guide's SDK snippets, run with only the import and the model changed."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

_GUIDE = Path(__file__).parents[1] / "data" / "guide"
_IMPORTS = {
    "from funasr.auto.auto_model_vllm import": "from tandem import",
    "from funasr.models.fun_asr_nano.inference_vllm import": "from tandem import",
    "from funasr.models.fun_asr_nano.inference_vllm_streaming import": "from tandem import",
}
_MODEL = "FunAudioLLM/Fun-ASR-Nano-2512"


def run_snippet(name: str, folder: Path, model: Path, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a snippet from `folder`, where its copy is kept; the names it leaves."""
    text = (_GUIDE / f"{name}.txt").read_text(encoding="utf-8")
    for published, ours in _IMPORTS.items():
        text = text.replace(published, ours)
    (folder / name).write_text(text.replace(_MODEL, str(model)), encoding="utf-8")
    return runpy.run_path(str(folder / name), init_globals=names)
