"""Options as messages: what can never work is refused by its name, before a server is asked."""

from __future__ import annotations

import math

import pytest

from tandem.convert import config_to_options, options_to_config
from tandem.errors import InvalidRequest
from tandem.results import RecognizeOptions, SilenceStep


def test_options_survive_the_way_over_the_wire() -> None:
    options = RecognizeOptions(
        language="en",
        hotwords=("Tandem",),
        num_speakers=2,
        speakers=True,
        silence_schedule=(SilenceStep(5.0, 1.0), SilenceStep(math.inf, 0.5)),
        max_new_tokens=200,
    )
    assert config_to_options(options_to_config(options)) == options


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (RecognizeOptions(max_new_tokens=2**32), "config.max_new_tokens"),
        (RecognizeOptions(max_new_tokens=-1), "config.max_new_tokens"),
        (RecognizeOptions(num_speakers=2**31), "config.speakers.num_speakers"),
        (RecognizeOptions(num_speakers=0), "config.speakers.num_speakers"),
        (RecognizeOptions(max_segment=0.1), "config.endpoint.max_segment"),
        (RecognizeOptions(max_segment=math.nan), "config.endpoint.max_segment"),
        (RecognizeOptions(fixed_silence=math.inf), "config.endpoint.fixed_silence"),
        (
            RecognizeOptions(silence_schedule=(SilenceStep(math.inf, math.nan),)),
            "config.endpoint.silence_schedule",
        ),
    ],
)
def test_what_can_never_work_is_named(options: RecognizeOptions, field: str) -> None:
    with pytest.raises(InvalidRequest, match=field) as refused:
        options_to_config(options)
    assert [violation.field for violation in refused.value.violations] == [field]
