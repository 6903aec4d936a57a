"""The networks apart from any recording: token counts, padding, gradients, bfloat16, compact CTC."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from encoder_service.model_config import AdaptorConfig, CtcConfig, FrontendConfig, NanoConfig, SanmConfig
from encoder_service.models.adaptor import AdaptorBlock, TransformerAdaptor
from encoder_service.models.ctc import CompactHead, CtcHead
from encoder_service.models.fun_asr_nano import FunASRNano, NanoOutput, audio_token_count
from encoder_service.models.sanm import SanmLayer

ADAPTOR = AdaptorConfig(encoder_dim=32, llm_dim=48, ffn_dim=64, downsample_rate=1, use_low_frame_rate=True)
CTC = CtcConfig(AdaptorConfig(32, 40, 64, downsample_rate=1, attention_heads=4), vocab_size=50, blank_id=49)
CONFIG = NanoConfig(FrontendConfig(n_mels=4), SanmConfig(24, 32, 4, 64, 3, 2), ADAPTOR, CTC)
LENGTHS = [1, 2, 3, 9, 17, 40]


def published_token_count(frames: int) -> int:
    """The nested form in which the published model states its truncation."""
    once = 1 + (frames - 3 + 2) // 2
    twice = 1 + (once - 3 + 2) // 2
    return (twice - 1) // 2 + 1


def test_low_frame_rate_keeps_one_frame_in_eight() -> None:
    for frames in range(1, 5001):
        assert audio_token_count(frames, ADAPTOR) == published_token_count(frames) == -(-frames // 8)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_without_low_frame_rate_every_stack_counts(k: int) -> None:
    config = replace(ADAPTOR, use_low_frame_rate=False, downsample_rate=k)
    assert [audio_token_count(n, config) for n in LENGTHS] == [(n - 1) // k + 1 for n in LENGTHS]


def build(config: NanoConfig) -> FunASRNano:
    torch.manual_seed(7)
    return FunASRNano(config).eval()


def crop(out: NanoOutput, row: int) -> dict[str, torch.Tensor]:
    assert out.ctc_hidden is not None and out.ctc_lengths is not None
    return {
        "encoder_out": out.encoder_out[row, : int(out.frame_lengths[row])],
        "audio_embeds": out.audio_embeds[row, : int(out.token_counts[row])],
        "ctc_hidden": out.ctc_hidden[row, : int(out.ctc_lengths[row])],
    }


@pytest.mark.parametrize("adaptor", [ADAPTOR, replace(ADAPTOR, use_low_frame_rate=False, downsample_rate=3)])
def test_padding_never_changes_a_result(adaptor: AdaptorConfig) -> None:
    model = build(replace(CONFIG, adaptor=adaptor))
    features = torch.randn(len(LENGTHS), 50, 24)  # what lies past a length is noise on purpose
    with torch.inference_mode():
        batch = model(features, torch.tensor(LENGTHS))
        for row, length in enumerate(LENGTHS):
            alone = crop(model(features[row : row + 1, :length], torch.tensor([length])), 0)
            for name, tensor in crop(batch, row).items():
                assert tensor.shape == alone[name].shape, name
                torch.testing.assert_close(tensor, alone[name], rtol=1e-4, atol=1e-5, msg=name)


def test_encoder_output_is_zero_past_each_length() -> None:
    with torch.inference_mode():
        out = build(CONFIG)(torch.randn(2, 20, 24), torch.tensor([20, 11])).encoder_out
    assert out[1, :11].any(dim=-1).all() and not out[1, 11:].any()


@pytest.mark.parametrize("k", [1, 3])
def test_adaptor_ignores_what_lies_past_a_length(k: int) -> None:
    torch.manual_seed(3)
    adaptor = TransformerAdaptor(replace(ADAPTOR, downsample_rate=k)).requires_grad_(False)
    x = torch.randn(1, 20, 32)
    padded, counts = adaptor(x, torch.tensor([10]))
    alone, _ = adaptor(x[:, :10], torch.tensor([10]))
    assert counts.tolist() == [alone.shape[1]] == [-(-10 // k)]
    torch.testing.assert_close(padded[:, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)


def test_norms_differ_in_epsilon_as_published() -> None:
    """Input of variance 1e-8: 1e-12 (adaptor) leaves the output at unit scale, 1e-5 (encoder) shrinks it."""
    with torch.inference_mode():
        encoder = SanmLayer(32, CONFIG.encoder).norm1(1e-4 * torch.randn(500, 32))
        adaptor = AdaptorBlock(48, 8).norm1(1e-4 * torch.randn(500, 48))
    assert float(adaptor.std()) == pytest.approx(1.0, abs=0.05)
    assert float(encoder.std()) < 0.1


def test_published_dimensions_give_the_published_tensors() -> None:
    """Counts stated for the published model.pt: tensors by namespace, and parameters of the CTC branch."""
    adaptor = AdaptorConfig(512, 1024, 2048, downsample_rate=1, use_low_frame_rate=True)
    ctc = CtcConfig(AdaptorConfig(512, 512, 2048, downsample_rate=1, n_layer=5), 60515, 60514)
    encoder = SanmConfig(560, 512, 4, 2048, num_blocks=50, tp_blocks=20)
    with torch.device("meta"):
        model = FunASRNano(NanoConfig(FrontendConfig(lfr_m=7, lfr_n=6), encoder, adaptor, ctc))
    tensors = model.state_dict()
    counted = Counter(name.split(".")[0] for name in tensors)
    assert counted == {"audio_encoder": 914, "audio_adaptor": 36, "ctc_decoder": 84, "ctc": 2}
    assert sum(value.numel() for name, value in tensors.items() if name.startswith("ctc")) == 39_065_827


def test_gradients_reach_every_parameter_and_none_come_from_padding() -> None:
    model = build(CONFIG).train()
    features = torch.randn(2, 20, 24, requires_grad=True)
    out = model(features, torch.tensor([20, 11]))
    assert model.ctc is not None and out.ctc_hidden is not None
    log_probs = model.ctc(out.ctc_hidden).transpose(0, 1)
    targets = torch.tensor([[1, 2, 3], [4, 5, 6]])
    loss = torch.nn.functional.ctc_loss(log_probs, targets, out.ctc_lengths, torch.tensor([3, 3]), blank=49)
    (loss + out.audio_embeds.square().mean()).backward()
    missing = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    # A key's bias moves all scores of a query alike, so softmax cancels its gradient up to rounding.
    assert [name for name in missing if not name.endswith("linear_k.bias")] == []
    assert features.grad is not None
    assert features.grad[1, :11].any() and not features.grad[1, 11:].any()


def test_bfloat16_stays_close_and_leaves_norms_and_ctc_head_in_float32() -> None:
    model = build(CONFIG)
    features, lengths = torch.randn(2, 30, 24), torch.tensor([30, 13])
    with torch.inference_mode():
        exact = model(features, lengths)
        model.cast(torch.bfloat16)
        rounded = model(features, lengths)
    kept = {name for name, value in model.named_parameters() if value.dtype == torch.float32}
    assert all("norm" in name or name.startswith("ctc.") for name in kept)
    error = (rounded.audio_embeds - exact.audio_embeds).norm() / exact.audio_embeds.norm()
    assert 0 < error < 0.02


@pytest.mark.parametrize(("vocab", "k"), [(50, 1), (50, 7), (50, 49), (1000, 16), (64, 16)])
@pytest.mark.parametrize("chunk", [3, 512])
def test_compact_posteriors_agree_with_dense(vocab: int, k: int, chunk: int) -> None:
    torch.manual_seed(1)
    head = CtcHead(16, vocab_size=vocab, blank_id=vocab - 1).requires_grad_(False)
    hidden = torch.randn(20, 16) * 8
    dense = head(hidden)
    compact = CompactHead(head, chunk=chunk)(hidden, k)
    assert compact.top_ids.shape == (20, k) and compact.top_ids.dtype == torch.int32
    torch.testing.assert_close(compact.blank_log_probs, dense[:, -1])
    torch.testing.assert_close(compact.top_log_probs, dense[:, :-1].topk(k).values)
    torch.testing.assert_close(compact.top_log_probs, dense.gather(-1, compact.top_ids.long()))
    parts = (
        compact.top_log_probs,
        compact.blank_log_probs[..., None],
        compact.remainder_log_probs[..., None],
    )
    total = torch.cat(parts, dim=-1).logsumexp(dim=-1)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-5, rtol=0)
    assert torch.equal(compact.greedy_ids, dense.argmax(dim=-1).int())
    assert torch.isneginf(compact.remainder_log_probs).all() == (k == vocab - 1)


def test_a_tiny_remainder_is_kept_exactly() -> None:
    head = CtcHead(1, vocab_size=4, blank_id=3)
    with torch.no_grad():
        head.ctc_lo.weight.zero_()
        head.ctc_lo.bias.copy_(torch.tensor([0.0, -40.0, -41.0, -2.0]))
    rest = CompactHead(head)(torch.zeros(1, 1), k=1).remainder_log_probs
    total = torch.tensor([0.0, -40.0, -41.0, -2.0]).logsumexp(0)
    torch.testing.assert_close(rest, torch.tensor([-40.0, -41.0]).logsumexp(0, keepdim=True) - total)


def test_rounded_operands_move_posteriors_little() -> None:
    torch.manual_seed(1)
    head = CtcHead(64, vocab_size=500, blank_id=499).requires_grad_(False)
    hidden = torch.randn(50, 64) * 4
    exact, rounded = (CompactHead(head, dtype)(hidden, 8) for dtype in (torch.float32, torch.bfloat16))
    error = (exact.top_log_probs - rounded.top_log_probs).abs()
    assert 0 < error.mean() < 0.02


def test_networks_compile_without_graph_breaks() -> None:
    model = build(CONFIG)
    features, lengths = torch.randn(2, 12, 24), torch.tensor([12, 5])
    explained = torch._dynamo.explain(model)(features, lengths)
    assert explained.graph_break_count == 0
