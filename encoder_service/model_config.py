"""Typed view of a checkpoint's config.yaml: every dimension of the networks comes from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_CTC_VOCAB_SIZE = 60515


class ConfigError(ValueError):
    """config.yaml describes something these networks cannot be."""


@dataclass(frozen=True)
class FrontendConfig:
    """Kaldi filter bank and low-frame-rate stacking (`frontend_conf`)."""

    sample_rate: int = 16000
    window: str = "hamming"
    n_mels: int = 80
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    lfr_m: int = 1
    lfr_n: int = 1
    upscale: bool = True
    preemphasis: float = 0.97
    low_freq: float = 20.0
    high_freq: float = 0.0
    cmvn_file: str | None = None

    @property
    def feature_size(self) -> int:
        return self.n_mels * self.lfr_m

    @property
    def frame_seconds(self) -> float:
        """Seconds between two output frames."""
        return self.frame_shift_ms * self.lfr_n / 1000.0


@dataclass(frozen=True)
class SanmConfig:
    """SenseVoice encoder (`audio_encoder_conf`); `num_blocks` counts the input layer, not `tp_blocks`."""

    input_size: int = 560
    output_size: int = 256
    attention_heads: int = 4
    linear_units: int = 2048
    num_blocks: int = 6
    tp_blocks: int = 0
    kernel_size: int = 11
    sanm_shift: int = 0


@dataclass(frozen=True)
class AdaptorConfig:
    """Transformer adaptor (`audio_adaptor_conf`, `ctc_decoder_conf`); stacks `downsample_rate` frames."""

    encoder_dim: int
    llm_dim: int
    ffn_dim: int = 2048
    downsample_rate: int = 2
    n_layer: int = 2
    attention_heads: int = 8
    use_low_frame_rate: bool = False


@dataclass(frozen=True)
class CtcConfig:
    """CTC branch: decoder, vocabulary and blank id."""

    decoder: AdaptorConfig
    vocab_size: int
    blank_id: int


@dataclass(frozen=True)
class NanoConfig:
    """All that the encoder tier reads from config.yaml. `ctc` is None when the file names no CTC decoder."""

    frontend: FrontendConfig
    encoder: SanmConfig
    adaptor: AdaptorConfig
    ctc: CtcConfig | None


def parse_nano_config(raw: Mapping[str, Any]) -> NanoConfig:
    """Build the typed config from the parsed YAML. Raises ConfigError naming the key at fault."""
    _require(raw, "audio_encoder", ("SenseVoiceEncoderSmall",))
    _require(raw, "audio_adaptor", ("Transformer",))
    frontend = _frontend(_section(raw, "frontend_conf"))
    encoder = _encoder(_section(raw, "audio_encoder_conf"), frontend.feature_size)
    adaptor = _adaptor(_section(raw, "audio_adaptor_conf"), "audio_adaptor_conf", encoder.output_size)
    return NanoConfig(frontend, encoder, adaptor, _ctc(raw, encoder.output_size))


def _section(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = raw.get(key)
    if not isinstance(section, Mapping):
        raise ConfigError(f"config.yaml: section {key} is missing or not a mapping")
    return section


def _require(conf: Mapping[str, Any], key: str, allowed: tuple[Any, ...]) -> None:
    value = conf.get(key, allowed[0])
    if value not in allowed:
        raise ConfigError(f"config.yaml: {key}={value!r} is not supported (supported: {allowed})")


def _number(conf: Mapping[str, Any], key: str, default: float, minimum: float) -> float:
    value = conf.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < minimum:
        raise ConfigError(f"config.yaml: {key}={value!r} must be a number of at least {minimum}")
    return float(value)


def _integer(conf: Mapping[str, Any], key: str, default: int | None, minimum: int = 1) -> int:
    value = conf.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"config.yaml: {key}={value!r} must be a whole number of at least {minimum}")
    return value


def _frontend(conf: Mapping[str, Any]) -> FrontendConfig:
    _require(conf, "window", ("hamming", "povey"))
    cmvn = conf.get("cmvn_file")
    return FrontendConfig(
        sample_rate=_integer(conf, "fs", 16000),
        window=conf.get("window", "hamming"),
        n_mels=_integer(conf, "n_mels", 80),
        frame_length_ms=_number(conf, "frame_length", 25, 1),
        frame_shift_ms=_number(conf, "frame_shift", 10, 1),
        lfr_m=_integer(conf, "lfr_m", 1),
        lfr_n=_integer(conf, "lfr_n", 1),
        upscale=bool(conf.get("upsacle_samples", True)),
        cmvn_file=None if cmvn is None else str(cmvn),
    )


def _encoder(conf: Mapping[str, Any], input_size: int) -> SanmConfig:
    _require(conf, "input_layer", ("pe",))
    _require(conf, "pos_enc_class", ("SinusoidalPositionEncoder",))
    _require(conf, "normalize_before", (True,))
    _require(conf, "selfattention_layer_type", ("sanm",))
    config = SanmConfig(
        input_size=input_size,
        output_size=_integer(conf, "output_size", 256),
        attention_heads=_integer(conf, "attention_heads", 4),
        linear_units=_integer(conf, "linear_units", 2048),
        num_blocks=_integer(conf, "num_blocks", 6),
        tp_blocks=_integer(conf, "tp_blocks", 0, minimum=0),
        kernel_size=_integer(conf, "kernel_size", 11),
        sanm_shift=_integer(conf, "sanm_shfit", 0, minimum=0),
    )
    _divides("audio_encoder_conf", config.attention_heads, config.output_size)
    return config


def _adaptor(conf: Mapping[str, Any], section: str, encoder_dim: int) -> AdaptorConfig:
    config = AdaptorConfig(
        encoder_dim=_integer(conf, "encoder_dim", encoder_dim),
        llm_dim=_integer(conf, "llm_dim", None),
        ffn_dim=_integer(conf, "ffn_dim", 2048),
        downsample_rate=_integer(conf, "downsample_rate", 2),
        n_layer=_integer(conf, "n_layer", 2, minimum=0),
        attention_heads=_integer(conf, "attention_heads", 8),
        use_low_frame_rate=bool(conf.get("use_low_frame_rate", False)),
    )
    if config.encoder_dim != encoder_dim:
        raise ConfigError(
            f"config.yaml: {section}.encoder_dim={config.encoder_dim}, but the encoder gives {encoder_dim}"
        )
    _divides(section, config.attention_heads, config.llm_dim)
    return config


def _divides(section: str, heads: int, size: int) -> None:
    if size % heads:
        raise ConfigError(f"config.yaml: {section}: {heads} attention heads do not divide {size}")


def _ctc(raw: Mapping[str, Any], encoder_dim: int) -> CtcConfig | None:
    if raw.get("ctc_decoder") is None:
        return None
    _require(raw, "ctc_decoder", ("Transformer",))
    vocab_size = _integer(raw, "ctc_vocab_size", DEFAULT_CTC_VOCAB_SIZE, minimum=2)
    blank_id = _integer(raw.get("ctc_conf") or {}, "blank_id", vocab_size - 1, minimum=0)
    if blank_id >= vocab_size:
        raise ConfigError(f"config.yaml: blank_id={blank_id} is outside the CTC vocabulary of {vocab_size}")
    decoder = _adaptor(_section(raw, "ctc_decoder_conf"), "ctc_decoder_conf", encoder_dim)
    return CtcConfig(decoder, vocab_size, blank_id)
