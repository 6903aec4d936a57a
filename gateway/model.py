"""Everything the gateway holds of the served checkpoint: facts, tokenizers, prompt."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from gateway.align.words import WordAligner
from gateway.backends.encoder import Encoder, ModelInfo
from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.detokenize import Detokenizer
from gateway.text.prompt import PromptBuilder
from tandem.errors import DeadlineExceeded, Unavailable

log = logging.getLogger("tandem.gateway.model")

LLM_TOKENIZER = "tokenizer.json"
CTC_TOKENIZER = "multilingual.tiktoken"
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class ServedModel:
    """The checkpoint behind this gateway; without a CTC branch it has no `ctc_tokenizer` and no `aligner`."""

    info: ModelInfo
    prompts: PromptBuilder
    detokenizer: Detokenizer
    ctc_tokenizer: CtcTokenizer | None
    aligner: WordAligner | None

    @property
    def public_name(self) -> str:
        """The hub id, or the name of a local checkpoint's directory: no paths of the server."""
        name = self.info.model
        return Path(name).name if name.startswith(("/", ".")) else name


async def fetch_model(encoder: Encoder) -> ServedModel:
    """Ask the encoder tier until it is there; tokenizers come over the wire, so no pod needs a copy."""
    while True:
        try:
            info = await encoder.model_info()
            files = await encoder.tokenizers()
            break
        except (Unavailable, DeadlineExceeded) as error:
            log.info("waiting for the encoder: %s", error)
            await asyncio.sleep(_POLL_SECONDS)
    llm = files[LLM_TOKENIZER]
    ctc = CtcTokenizer(files[CTC_TOKENIZER], info.ctc_vocab_size) if info.has_ctc else None
    aligner = WordAligner(ctc, info.frame_shift) if ctc is not None else None
    return ServedModel(info, PromptBuilder(llm, info.prompt_style), Detokenizer(llm), ctc, aligner)
