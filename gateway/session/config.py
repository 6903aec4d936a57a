"""How a live session behaves: what it recognises, how often it shows partial text, when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from tandem.results import RecognizeOptions


@dataclass(frozen=True, slots=True)
class PartialPolicy:
    """When running speech is shown. All times are seconds of audio unless said otherwise.

    The CTC text of the running segment is refreshed every `first_interval` until there is text and every
    `interval` from then on. A refresh reads what is new, the `unsettled` end of the pass before it, which
    could not hear what follows, and `context` ahead of both; at most `window` (0: always the whole segment).

    The language model re-decodes every `llm_interval` once there are `llm_min_audio`, and when the segment is
    longer by the share `llm_growth`: each pass encodes all of it. The first `stage1_decodes` of an utterance
    start from nothing, later ones continue the confirmed text, and the last `rollback_chars` characters of a
    hypothesis are never confirmed.

    `speculate_after` into a pause the final decode starts. Under load the intervals stretch: a lane rests
    `load_factor` times its own recent latency (wall time). `at_checkpoints`: none of this schedule holds;
    the language model decodes when the client asks.
    """

    enabled: bool = True
    llm: bool = True
    first_interval: float = 0.1
    interval: float = 0.32
    window: float = 8.0
    unsettled: float = 0.3
    context: float = 0.8
    llm_interval: float = 0.72
    llm_growth: float = 0.3
    llm_min_audio: float = 1.44
    stage1_decodes: int = 10
    rollback_chars: int = 8
    speculate_after: float = 0.2
    load_factor: float = 2.0
    at_checkpoints: bool = False


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of a session in seconds.

    Without audio or a command for `idle` the session ends; running speech ends after `stall` without audio.
    It ends `max_duration` after it began. `backlog`: ended speech that may wait for its final decode before
    no more audio is taken. `grace`: how long it outlives a lost connection. `final_timeout`: how long a
    final decode is retried.
    """

    idle: float = 300.0
    stall: float = 5.0
    max_duration: float = 4 * 3600.0
    backlog: float = 120.0
    grace: float = 30.0
    final_timeout: float = 60.0
    replay_finals: int = 512


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What one client asks of its session. With `client_endpoint` only `finalize` ends an utterance.

    `speech_margin` and `lead` (seconds of audio before detected speech) as in gateway.vad.
    """

    recognize: RecognizeOptions = field(default_factory=RecognizeOptions)
    client_endpoint: bool = False
    speech_margin: float | None = None
    lead: float = 0.2
    partials: PartialPolicy = field(default_factory=PartialPolicy)
