"""The sizes of CUDA graphs that vLLM is told to keep; benchmarks/gpu has it keep them."""

from __future__ import annotations

import itertools

from decoder_service.engines.graphs import MAX_GRAPH_TOKENS, graph_config


def test_graphs_hold_whole_steps_up_to_many_tokens() -> None:
    config = graph_config("auto", speculative_tokens=0, max_num_seqs=64)
    sizes = config["cudagraph_capture_sizes"]
    assert config["cudagraph_mode"] == "FULL"
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (1, MAX_GRAPH_TOKENS)
    assert all(larger - size <= max(8, size // 8) for size, larger in itertools.pairwise(sizes))


def test_graphs_with_drafts_hold_whole_rows_up_to_all_requests() -> None:
    config = graph_config("auto", speculative_tokens=7, max_num_seqs=64)
    sizes = config["cudagraph_capture_sizes"]
    assert config["cudagraph_mode"] == "FULL_AND_PIECEWISE"
    assert sizes == sorted(set(sizes))
    assert all(size % 8 == 0 for size in sizes)
    assert (sizes[0], sizes[-1]) == (8, 64 * 8)
    most = graph_config("auto", speculative_tokens=7, max_num_seqs=512)["cudagraph_capture_sizes"][-1]
    assert most == MAX_GRAPH_TOKENS


def test_the_mode_may_be_chosen() -> None:
    assert graph_config("piecewise", 0, 64)["cudagraph_mode"] == "PIECEWISE"
