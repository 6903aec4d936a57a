"""Drop-in for FunASR's streaming class: text that grows chunk by chunk, its beginning confirmed."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Literal, Self

from tandem.access import Access
from tandem.errors import Unavailable
from tandem.live_inputs import LiveInput, live_audio
from tandem.lockstep import Lockstep
from tandem.results import RecognizeOptions
from tandem.sdk_services import Services, hotword_list
from tandem.streaming_client import StreamOptions
from tandem.waves import SAMPLE_RATE


class FunASRNanoStreamingVLLM(Services):
    """Recognises audio while it arrives: a result for each chunk, with what is confirmed and what may change.

    >>> engine = FunASRNanoStreamingVLLM.from_pretrained(model="FunAudioLLM/Fun-ASR-Nano-2512")
    >>> for result in engine.streaming_generate(microphone(), language="中文"):
    ...     print(result["fixed_text"], "|", result["text"])
    """

    def __init__(
        self,
        chunk_ms: int,
        rollback_chars: int,
        server: str | None,
        access: Access | None = None,
        **engine: Any,
    ) -> None:
        if chunk_ms <= 0 or rollback_chars < 0:
            raise ValueError(
                f"chunk_ms {chunk_ms} must be positive, rollback_chars {rollback_chars} not below 0"
            )
        super().__init__(server, access, gateways=1, **engine)
        self.chunk_ms, self.rollback_chars = chunk_ms, rollback_chars

    @classmethod
    def from_pretrained(
        cls,
        model: str = "demo",
        chunk_ms: int = 720,
        rollback_chars: int = 8,
        hub: Literal["ms", "hf"] = "hf",
        device: str | None = None,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.8,
        max_model_len: int = 2048,
        engine: Literal["auto", "vllm", "transformers"] = "auto",
        server: str | None = None,
        access: Access | None = None,
    ) -> Self:
        """Start the services, or use those at `server`. Raises tandem.launcher.LaunchError.

        Every `chunk_ms` of audio give a result; the last `rollback_chars` of a text, and the word they are
        in, are never confirmed.
        """
        return cls(
            chunk_ms,
            rollback_chars,
            server,
            access,
            model=model,
            hub=hub,
            device=device,
            dtype=dtype,
            tensor_parallel_size=tensor_parallel_size,
            gpu_memory_utilization=gpu_memory_utilization,
            max_model_len=max_model_len,
            engine=engine,
        )

    def streaming_generate(
        self,
        audio: LiveInput,
        *,
        language: str | None = None,
        hotwords: Sequence[str] = (),
        itn: bool = True,
        max_new_tokens: int | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> Generator[dict[str, Any], None, None]:
        """A dict per chunk: text, fixed_text, is_final, chunk_idx (from 1), audio_duration_ms.

        `audio` is a recording (path, bytes of a file, samples) or an iterable of chunks of any size (PCM16
        bytes or samples at `sample_rate`), which is asked for the next one only after the results of those
        before. `text` is that of all audio so far; fixed_text begins it, never shrinks and is never taken
        back. The last dict alone has is_final. Audio is cut at pauses, so it may go on for hours. Closing the
        generator ends the session.
        """
        self.check_open()
        source = live_audio(audio, sample_rate)
        wanted = RecognizeOptions(
            language=language,
            hotwords=hotword_list(hotwords),
            itn=itn,
            max_new_tokens=max_new_tokens,
            word_times=False,
        )
        options = StreamOptions(
            wanted, sample_rate=source.rate, at_checkpoints=True, rollback_chars=self.rollback_chars
        )
        chunk_bytes = 2 * max(1, source.rate * self.chunk_ms // 1000)
        heard = count = 0
        try:
            with Lockstep(self.server, options, self.access) as session:
                for count, (chunk, last) in enumerate(_rechunked(source.pieces, chunk_bytes), 1):
                    heard += len(chunk)
                    at = {"chunk_idx": count, "audio_duration_ms": heard / 2 / source.rate * 1000}
                    if last:
                        text = session.finish(chunk)
                        yield {"text": text, "fixed_text": text, "is_final": True, **at}
                    else:
                        now = session.hear(chunk)
                        yield {"text": now.text, "fixed_text": now.fixed, "is_final": False, **at}
        except Unavailable:
            self.check_alive()
            raise


def _rechunked(pieces: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Chunks of `size` bytes, each as soon as it is complete; the last, marked, is what remains."""
    rest = b""
    for piece in pieces:
        data = rest + piece
        whole = len(data) // size * size
        for first in range(0, whole, size):
            yield data[first : first + size], False
        rest = data[whole:]
    yield rest, True
