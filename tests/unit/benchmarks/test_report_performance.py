"""The performance page says what the committed results say, and its parts are made from rows."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks import report_performance
from benchmarks.passes import Row
from benchmarks.plot import line_plot
from benchmarks.report_performance import Measured


def row(name: str, **more: object) -> Row:
    made = Row(name, 100.0, 2.0)
    for key, value in more.items():
        setattr(made, key, value)
    return made


def test_page_and_plots_are_current() -> None:
    for path, text in report_performance.outputs().items():
        shown = path.read_text(encoding="utf-8")
        assert shown == text, f"{path.name}: python -m benchmarks.report_performance"


def test_the_hop_is_what_the_encoder_waits_beyond_the_decoders_own_time() -> None:
    counters = {
        "gateway": {"tandem_gateway_stage_seconds_sum.decode": 10.0},
        "decoder": {
            "tandem_decoder_stage_seconds_sum.receive": 0.5,
            "tandem_decoder_stage_seconds_sum.generate": 9.0,
        },
        "encoder": {
            "tandem_request_seconds_count.Transcribe": 50.0,
            "tandem_request_seconds_sum.Transcribe": 25.0,
        },
    }
    page = "<!-- hop -->\nold\n<!-- end -->"
    files = [Measured("growth", {}, [row("sdk #1", counters=counters)])]
    (line,) = [line for line in report_performance.written(page, files).splitlines() if "sdk" in line]
    assert line == "| sdk #1 | 50 | 500 | 10.0 | 2.0% |"


def test_two_tiers_stand_beside_one_process_by_load() -> None:
    def side(tiers: str, at: int, seconds: float) -> Row:
        encoder = {
            "tandem_request_seconds_count.Transcribe": 10.0,
            "tandem_request_seconds_sum.Transcribe": seconds,
        }
        gateway = {"tandem_gateway_stage_seconds_sum.decode": seconds}
        decoder = {
            "tandem_decoder_stage_seconds_sum.receive": seconds / 10,
            "tandem_decoder_stage_seconds_sum.generate": seconds / 2,
        }
        detail = {"tiers": tiers, "at": at, "latency_p50": seconds / 2}
        counters = {"encoder": encoder, "gateway": gateway, "decoder": decoder}
        return row(f"{tiers}, {at}", counters=counters, detail=detail)

    rows = [side("two tiers", 8, 2.0), side("one process", 8, 1.5), side("two tiers", 8, 4.0)]
    rows += [side("one process", 8, 2.5), side("two tiers", 8, 90.0)]  # The last round is not whole.
    rows += [side("two tiers", 1, 1.0), side("one process", 1, 1.1), side("two tiers", 32, 9.0)]
    page = report_performance.written("<!-- one-process -->\n<!-- end -->", [Measured("hop", {}, rows)])
    assert [line for line in page.splitlines() if line[2:3].isdigit()] == [
        "| 1 | 1 | 40.0 | 40.0% | 8.0% | 100.0 | 110.0 | 0.500 | 0.550 | 50 | 50 |",
        "| 8 | 2 | 120.0 | 40.0% | 8.0% | 300.0 | 200.0 | 1.500 | 1.000 | 50 | 50 |",
    ]


def test_parts_without_results_are_empty_and_the_text_around_them_stays() -> None:
    page = "before\n<!-- growth -->\nold\n<!-- end -->\nafter"
    assert report_performance.written(page, []) == "before\n<!-- growth -->\n<!-- end -->\nafter"


def test_points_of_a_curve_are_in_order_and_in_the_plot() -> None:
    rows = [row(f"clients {at}", detail={"curve": "clients", "at": at}) for at in (8, 1, 2)]
    files = [Measured("both", {}, rows)]
    page = report_performance.written("<!-- growth -->\n<!-- end -->", files)
    assert [line.split("|")[1].strip() for line in page.splitlines() if "| 50 |" in line] == ["1", "2", "8"]
    (plot,) = report_performance.plots(files).values()
    circles = ElementTree.fromstring(plot).iter("{http://www.w3.org/2000/svg}circle")
    assert len(list(circles)) == 3


@pytest.mark.parametrize("points", [[(1.0, 0.0)], [(1.0, 5.0), (1000.0, 4321.0)]])
def test_plots_stay_inside_their_frame(points: list[tuple[float, float]]) -> None:
    picture = ElementTree.fromstring(line_plot("a < b", "x", "y", {"one": points}))
    for circle in picture.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(circle.attrib["cx"]) <= 480 and 0 <= float(circle.attrib["cy"]) <= 280
