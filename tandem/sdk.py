"""Drop-in for FunASR's vLLM classes: local services or a running server behind `generate()`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

from tandem.access import Access
from tandem.inputs import Input, recordings
from tandem.many import IN_FLIGHT, ManyOptions, Outcome, transcribe_many
from tandem.results import RecognizeOptions, SilenceStep
from tandem.sdk_results import result_dict
from tandem.sdk_services import Services, hotword_list
from tandem.waves import SAMPLE_RATE

log = logging.getLogger("tandem.sdk")

Schedule = Iterable[tuple[float, float]]
"""Steps (speech in ms, silence in ms): up to that much speech, that much silence ends a segment."""


def schedule_steps(schedule: Schedule | None) -> tuple[SilenceStep, ...]:
    """The guide's schedule in seconds; its last step counts for all that is longer."""
    steps = [SilenceStep(speech / 1000, silence / 1000) for speech, silence in schedule or ()]
    if steps:
        steps[-1] = SilenceStep(math.inf, steps[-1].silence)
    return tuple(steps)


class _Model(Services):
    """What both classes share: one call over many recordings."""

    def _options(self, wanted: RecognizeOptions, in_flight: int, timeout: float | None) -> ManyOptions:
        return ManyOptions(wanted, in_flight, timeout, access=self.access, local_files=self.is_local)

    def _outcomes(self, inputs: Input, sample_rate: int, options: ManyOptions) -> Iterator[Outcome]:
        self.check_open()
        yield from transcribe_many(self.servers, recordings(inputs, sample_rate), options, self.check_alive)

    def _results(
        self, inputs: Input, sample_rate: int, options: ManyOptions, on_error: str, sentences: bool
    ) -> list[dict[str, Any]]:
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error is "raise" or "skip", not {on_error!r}')
        results = []
        for outcome in self._outcomes(inputs, sample_rate, options):
            if outcome.error is not None and on_error == "skip":
                log.warning("%s is skipped: %s", outcome.recording.name, outcome.error)
                continue
            results.append(result_dict(outcome.recording.key, outcome.result(), sentences=sentences))
        return results


class AutoModelVLLM(_Model):
    """Recognises recordings of any length, cut at pauses.

    >>> with AutoModelVLLM(model="FunAudioLLM/Fun-ASR-Nano-2512") as model:
    ...     for result in model.generate(["a.wav", "b.wav"], language="中文"):
    ...         print(result["key"], result["text"])

    Without `server` (the gRPC address of a running one, reached with `access`) the services start as child
    processes, and end with this object; `gateways` of them share the recordings, None follows the cores.
    `encoders` (None: as many as decoders) and `decoders` share the GPU, where one process of a tier is slower
    than that. Raises tandem.launcher.LaunchError when they do not start, InvalidRequest when there are fewer
    encoders than decoders.
    """

    def __init__(
        self,
        model: str = "demo",
        hub: Literal["ms", "hf"] = "hf",
        device: str | None = None,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.8,
        max_model_len: int = 4096,
        engine: Literal["auto", "vllm", "transformers"] = "auto",
        server: str | None = None,
        access: Access | None = None,
        gateways: int | None = None,
        encoders: int | None = None,
        decoders: int = 1,
    ) -> None:
        super().__init__(
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
            gateways=gateways,
            encoders=encoders,
            decoders=decoders,
        )

    def generate(
        self,
        input: Input,
        *,
        language: str | None = None,
        hotwords: Sequence[str] = (),
        itn: bool = True,
        max_new_tokens: int | None = None,
        vad: bool = True,
        dynamic_silence: bool = True,
        silence_schedule: Schedule | None = None,
        spk: bool = False,
        num_speakers: int | None = None,
        sentence_info: bool = False,
        batch_size: int = IN_FLIGHT,
        sample_rate: int = SAMPLE_RATE,
        on_error: Literal["raise", "skip"] = "raise",
        timeout: float | None = None,
    ) -> list[dict[str, Any]]:
        """A dict per recording, in order: key, text, timestamps [{token, start_time, end_time, score}].

        As in FunASR, timestamps is left out where there are none: for silence, and for a model without CTC.
        `input` is a path, wav.scp, jsonl, bytes, an open file, samples, or a list of these. `vad=False`
        decodes each as one segment and raises LimitExceeded where the model's limit is exceeded. `spk` and
        `sentence_info` add sentence_info [{text, start, end, timestamp, spk}] in milliseconds. `batch_size`
        recordings are in flight at a time. The error of a recording names it.
        """
        wanted = RecognizeOptions(
            language=language,
            hotwords=hotword_list(hotwords),
            itn=itn,
            vad=vad,
            speakers=spk,
            num_speakers=num_speakers,
            dynamic_silence=dynamic_silence,
            silence_schedule=schedule_steps(silence_schedule),
            max_new_tokens=max_new_tokens,
        )
        options = self._options(wanted, batch_size, timeout)
        return self._results(input, sample_rate, options, on_error, sentence_info or spk)


class FunASRNanoVLLM(_Model):
    """Recognises recordings as one segment each, as the published engine does.

    What is longer than the model's limit (60 s) is cut at pauses, where the published engine loses text.
    """

    @classmethod
    def from_pretrained(
        cls,
        model: str = "demo",
        hub: Literal["ms", "hf"] = "hf",
        device: str | None = None,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.8,
        max_model_len: int = 2048,
        engine: Literal["auto", "vllm", "transformers"] = "auto",
        server: str | None = None,
        access: Access | None = None,
        gateways: int | None = None,
        encoders: int | None = None,
        decoders: int = 1,
    ) -> Self:
        """Start the services, or use those at `server`. Raises tandem.launcher.LaunchError."""
        return cls(
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
            gateways=gateways,
            encoders=encoders,
            decoders=decoders,
        )

    def generate(
        self,
        inputs: Input,
        *,
        hotwords: Sequence[str] = (),
        language: str | None = None,
        itn: bool = True,
        max_new_tokens: int | None = None,
        batch_size: int = IN_FLIGHT,
        sample_rate: int = SAMPLE_RATE,
        on_error: Literal["raise", "skip"] = "raise",
        timeout: float | None = None,
    ) -> list[dict[str, Any]]:
        """A dict per recording, in order, as AutoModelVLLM.generate gives them."""
        wanted = RecognizeOptions(
            language=language, hotwords=hotword_list(hotwords), itn=itn, max_new_tokens=max_new_tokens
        )
        options = replace(self._options(wanted, batch_size, timeout), whole_if_possible=True)
        return self._results(inputs, sample_rate, options, on_error, sentences=False)
