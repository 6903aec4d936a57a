"""An encoder whose device is lost at its second batch; run it as `python -m tests.support.lost_device`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from encoder_service.__main__ import main
from encoder_service.engine import EncoderEngine
from encoder_service.messages import EncodeItem, Pending

launch = EncoderEngine.launch
batches = 0


def launch_once(self: EncoderEngine, items: Sequence[EncodeItem]) -> Pending:
    global batches
    batches += 1
    if batches > 1:  # the first is the warm-up
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    return launch(self, items)


if __name__ == "__main__":
    EncoderEngine.launch = launch_once  # type: ignore[method-assign]
    EncoderEngine.is_working = lambda self: batches < 2  # type: ignore[method-assign]
    sys.exit(main())
