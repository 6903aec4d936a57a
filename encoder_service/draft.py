"""What the CTC branch heard, as a draft of the language model's answer: the text in that model's tokens."""

from __future__ import annotations

from tokenizers import Tokenizer

from encoder_service.checkpoint import Checkpoint
from encoder_service.describe import tokenizer_files
from encoder_service.messages import CompactCtc
from tandem.checkpoint import CheckpointError
from tandem.ctc import best_path, parse_ranks


class Drafter:
    """Turns compact posteriors into token ids with the vocabularies of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Raises CheckpointError where there is no CTC branch."""
        if not checkpoint.has_ctc:
            raise CheckpointError("drafts come from the CTC branch, and the checkpoint has no CTC weights")
        llm_file, ctc_file = tokenizer_files(checkpoint)
        ranks = parse_ranks(ctc_file.read_bytes())
        self._bytes = sorted(ranks, key=ranks.__getitem__)
        self._tokenizer = Tokenizer.from_file(str(llm_file))

    def draft(self, ctc: CompactCtc) -> tuple[int, ...]:
        """Ids of the language model for the best path; special tokens and broken characters are left out."""
        path, _ = best_path(ctc.top_ids, ctc.top_log_probs, ctc.blank_log_probs, ctc.blank_id)
        spoken = b"".join(self._bytes[token] for token in path if token < len(self._bytes))
        text = spoken.decode("utf-8", errors="ignore")
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)
