"""What an encoder can do beyond what all can: the parts of its protocol that came later."""

from __future__ import annotations

from dataclasses import dataclass

from tandem.encoder.v1 import encoder_pb2 as pb


@dataclass(frozen=True, slots=True)
class Features:
    """As GetModelInfo names them."""

    aligns_targets: bool = False
    reports_encoded: bool = False
    takes_whole_audio: bool = False

    @classmethod
    def of(cls, info: pb.GetModelInfoResponse) -> Features:
        """Those of the encoder that describes itself so."""
        return cls(info.aligns_targets, info.reports_encoded, info.takes_whole_audio)
