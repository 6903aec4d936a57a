"""The encoder tier against the published implementation: each stage, one by one and batched."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
import pytest
import torch

from encoder_service.checkpoint import Checkpoint, load_checkpoint
from encoder_service.frontend import Frontend
from encoder_service.models.ctc import CompactHead
from encoder_service.models.fun_asr_nano import NanoOutput
from tests.golden.nano import DIRECTORY, RECORDINGS, Golden, load_golden, relative_error

FEATURES_ABSOLUTE = 2e-3
NETWORK_RELATIVE = 1e-3
ALL = range(len(RECORDINGS))


@pytest.fixture(scope="module")
def golden() -> Golden:
    return load_golden()


@pytest.fixture(scope="module")
def checkpoint() -> Iterator[Checkpoint]:
    with torch.inference_mode():
        yield load_checkpoint(DIRECTORY)


def run(checkpoint: Checkpoint, golden: Golden, indices: list[int]) -> tuple[torch.Tensor, NanoOutput]:
    clips = [torch.from_numpy(golden.clips[index]) for index in indices]
    features, lengths = Frontend(checkpoint.config.frontend).extract(clips)
    return features, checkpoint.model(features, lengths)


@pytest.mark.parametrize("index", ALL, ids=RECORDINGS)
def test_single_clip(checkpoint: Checkpoint, golden: Golden, index: int) -> None:
    features, out = run(checkpoint, golden, [index])
    expected = golden.arrays[f"{index}.lfr_fbank"]
    assert features[0].shape == expected.shape
    assert np.abs(features[0].numpy() - expected).max() <= FEATURES_ABSOLUTE
    assert checkpoint.model.ctc is not None and out.ctc_hidden is not None
    computed = {
        "encoder_out": out.encoder_out,
        "adaptor_out": out.adaptor_out,
        "audio_embeds": out.audio_embeds,
        "ctc_log_probs": checkpoint.model.ctc(out.ctc_hidden),
    }
    for name, tensor in computed.items():
        error = relative_error(tensor[0].numpy(), golden.arrays[f"{index}.{name}"])
        assert error <= NETWORK_RELATIVE, name


def test_padded_batch(checkpoint: Checkpoint, golden: Golden) -> None:
    features, out = run(checkpoint, golden, list(ALL))
    for index in ALL:
        frames, tokens = int(out.frame_lengths[index]), int(out.token_counts[index])
        expected = golden.arrays[f"{index}.lfr_fbank"]
        assert np.abs(features[index, :frames].numpy() - expected).max() <= FEATURES_ABSOLUTE
        pairs = {
            f"batch.{index}.encoder_out": out.encoder_out[index, :frames],
            f"batch.{index}.adaptor_out": out.adaptor_out[index, :frames],
            f"{index}.audio_embeds": out.audio_embeds[index, :tokens],
        }
        for name, tensor in pairs.items():
            assert relative_error(tensor.numpy(), golden.arrays[name]) <= NETWORK_RELATIVE, name
        assert not out.audio_embeds[index, tokens:].any()


def test_token_counts_match_the_prompts(checkpoint: Checkpoint, golden: Golden) -> None:
    _, out = run(checkpoint, golden, list(ALL))
    expected = [golden.cases[f"{index}.0"]["audio_tokens"] for index in ALL]
    assert out.token_counts.tolist() == expected


@pytest.mark.parametrize("batched", [False, True])
def test_ctc_greedy_ids(checkpoint: Checkpoint, golden: Golden, batched: bool) -> None:
    runs = [list(ALL)] if batched else [[index] for index in ALL]
    for indices in runs:
        _, out = run(checkpoint, golden, indices)
        assert checkpoint.model.ctc is not None and out.ctc_hidden is not None
        head = CompactHead(checkpoint.model.ctc)
        for row, index in enumerate(indices):
            case = golden.cases[f"{index}.ctc"]
            path = head(out.ctc_hidden[row, : case["lfr_frames"]], k=4).greedy_ids.tolist()
            blank = case["ctc_blank_id"]
            assert [key for key, _ in groupby(path) if key != blank] == case["ctc_greedy_ids"]
