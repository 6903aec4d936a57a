"""What can be wrong with a recording. Light and picklable: worker processes raise these."""

from __future__ import annotations


class AudioError(Exception):
    """Base of everything that is wrong with the recording itself. `str(error)` is safe to show."""


class UndecodableAudio(AudioError):
    """No container or codec that is accepted, or damaged beyond use."""


class EmptyAudio(AudioError):
    """The recording has no samples."""


class AudioLimitError(AudioError):
    """Base of the limits that a recording can exceed."""


class AudioTooLarge(AudioLimitError):
    """More bytes, samples or channels than allowed."""


class AudioTooLong(AudioLimitError):
    """More seconds than allowed."""


class DecodingTooSlow(AudioLimitError):
    """Decoding took more time than allowed: a recording made to waste it, or an overloaded machine."""
