"""What the encoder says of its checkpoint: capabilities, prompt style, tokenizer files."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import torch

from encoder_service.checkpoint import Checkpoint
from encoder_service.config import EncoderConfig
from encoder_service.engine import EncoderEngine
from tandem.checkpoint import CheckpointError, read_config
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.rpc.durations import duration
from tandem.tensor.v1 import tensor_pb2

ARCHITECTURE = "fun_asr_nano"
LLM_TOKENIZER = "tokenizer.json"
CTC_TOKENIZER = "multilingual.tiktoken"


def describe(engine: EncoderEngine, flags: EncoderConfig) -> pb.GetModelInfoResponse:
    """The answer of GetModelInfo."""
    checkpoint = engine.checkpoint
    config, ctc = checkpoint.config, checkpoint.config.ctc if checkpoint.has_ctc else None
    dtypes = {torch.float32: tensor_pb2.DATA_TYPE_FLOAT32, torch.bfloat16: tensor_pb2.DATA_TYPE_BFLOAT16}
    return pb.GetModelInfoResponse(
        model=flags.model,
        model_hash=checkpoint.sha256,
        has_ctc=ctc is not None,
        ctc_vocab_size=ctc.vocab_size if ctc is not None else 0,
        ctc_blank_id=ctc.blank_id if ctc is not None else 0,
        hidden_size=config.adaptor.llm_dim,
        frame_shift=duration(config.frontend.frame_seconds),
        max_segment_duration=duration(engine.config.max_segment_seconds),
        sample_rate_hertz=engine.sample_rate,
        architecture=ARCHITECTURE,
        prompt_style=prompt_style(checkpoint.directory),
        dtype=dtypes[engine.dtype],
        device=str(engine.device),
        compact_top_k=engine.config.ctc_top_k,
        has_speakers=engine.speakers is not None,
        speaker_embed_size=engine.speakers.size if engine.speakers is not None else 0,
        aligns_targets=ctc is not None and flags.max_kept_seconds > 0,
        reports_encoded=True,
        takes_whole_audio=True,
    )


def prompt_style(directory: Path) -> pb.PromptStyle:
    """dataset_conf.sys_prompt and dataset_conf.do_think; both are on when the key is absent."""
    dataset = read_config(directory).get("dataset_conf") or {}
    return pb.PromptStyle(
        system_turn=bool(dataset.get("sys_prompt", True)), think=bool(dataset.get("do_think", True))
    )


def tokenizer_files(checkpoint: Checkpoint) -> tuple[Path, ...]:
    """tokenizer.json of the language model, and the CTC vocabulary if any.

    As for the decoder, its folder lies in the checkpoint under the last part of llm_conf.init_param_path: the
    rest is where it was in training.
    """
    llm = (read_config(checkpoint.directory).get("llm_conf") or {}).get("init_param_path", "Qwen3-0.6B")
    files = [checkpoint.directory / PurePosixPath(str(llm)).name / LLM_TOKENIZER]
    if checkpoint.has_ctc:
        files.append(checkpoint.directory / CTC_TOKENIZER)
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise CheckpointError(f"the checkpoint lacks tokenizer files: {', '.join(missing)}")
    return tuple(files)
