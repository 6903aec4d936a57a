"""`tandem plan`: replicas that carry the load, not one more; costs that make no sense are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tandem.cli import main
from tandem.errors import InvalidRequest
from tandem.plan import Demand, StageCosts, Target, load_costs, make_plan
from tandem.plan.cost_file import PACKAGED, packaged_names
from tandem.plan.planner import QUANTILE, decoder_load, encoder_load
from tandem.plan.queues import quantile_time

COSTS: dict[str, Any] = {
    "format": "tandem-stage-costs-1",
    "about": {"machine": "a machine"},
    "gateway": {
        "process_per_audio_second": 0.002,
        "process_per_request": 0.004,
        "worker_per_audio_second": 0.001,
        "worker_per_request": 0.0,
        "process_per_stream_second": 0.02,
        "cores": 1,
    },
    "encoder": {
        "gpus": 1,
        "curve": [
            {"in_flight": 1, "audio_seconds_per_second": 400},
            {"in_flight": 16, "audio_seconds_per_second": 2000},
        ],
    },
    "decoder": {
        "gpus": 2,
        "curve": [
            {"in_flight": 1, "tokens_per_second": 400},
            {"in_flight": 64, "tokens_per_second": 10_000},
        ],
    },
    "speech": {"segment_seconds": 10, "segment_tokens": 50, "speech_share": 0.8},
    "live": {
        "encoder_requests": 2.0,
        "encoder_audio_seconds": 10.0,
        "decoder_requests": 1.0,
        "decoder_tokens": 20.0,
    },
}


def costs_of(path: Path, **changes: Any) -> StageCosts:
    file = path / "costs.json"
    file.write_text(json.dumps({**COSTS, **changes}), encoding="utf-8")
    return load_costs(str(file))


@pytest.fixture
def costs(tmp_path: Path) -> StageCosts:
    return costs_of(tmp_path)


def test_recordings_alone_take_what_their_seconds_cost(costs: StageCosts) -> None:
    # 24,000 hours a day, twice as fast at the peak: 2,000 seconds of recordings a second.
    plan = make_plan(costs, Demand(audio_hours=24_000, peak_factor=2, recording_seconds=100), Target(0.5))
    assert (plan.encoder.replicas, plan.decoder.replicas) == (2, 2)
    assert plan.encoder.utilization == pytest.approx(0.4)  # 1,600 of 4,000
    assert plan.decoder.utilization == pytest.approx(0.4)  # 8,000 of 20,000
    # 2,000 * 0.002 + 20 * 0.004 cores, half of each in use.
    assert plan.gateway.replicas == 9
    assert plan.gateway.utilization == pytest.approx(4.08 / 9)
    assert (plan.encoder.gpus, plan.decoder.gpus, plan.gpus) == (2, 4, 6)
    assert plan.audio_workers == 1
    assert plan.cores == 2  # (4.08 + 2) / 9 at half use


def test_live_streams_cost_their_partials(costs: StageCosts) -> None:
    plan = make_plan(costs, Demand(live_streams=700), Target(0.7))
    assert plan.encoder.replicas == 5  # 7,000 of 2,000 * 0.7 each
    assert plan.decoder.replicas == 2  # 14,000 of 10,000 * 0.7 each
    assert plan.gateway.replicas == 20  # 14 cores at 0.7
    assert plan.gateway.replicas * plan.max_sessions == 1000


def test_both_loads_add_up(costs: StageCosts) -> None:
    mixed = Demand(live_streams=100, audio_hours=1200)
    encoder, decoder = encoder_load(costs, mixed), decoder_load(costs, mixed)
    assert encoder.units == pytest.approx(100 * 10 + 100 * 0.8)
    assert encoder.jobs == pytest.approx(100 * 2 + 100 * 0.8 / 10)
    assert decoder.units == pytest.approx(100 * 20 + 100 * 0.8 / 10 * 50)
    assert decoder.jobs == pytest.approx(100 * 1 + 100 * 0.8 / 10)


@pytest.mark.parametrize("milliseconds", [160, 200, 260])
def test_the_latency_is_kept_and_no_replica_could_go(costs: StageCosts, milliseconds: int) -> None:
    demand, latency = Demand(live_streams=2000, audio_hours=5000), milliseconds / 1000
    cheap = make_plan(costs, demand, Target(0.9))
    plan = make_plan(costs, demand, Target(0.9, latency))
    assert plan.latency <= latency < cheap.latency
    assert plan.encoder.replicas + plan.decoder.replicas > cheap.encoder.replicas + cheap.decoder.replicas

    def time(encoders: int, decoders: int) -> float:
        front, back = encoder_load(costs, demand), decoder_load(costs, demand)
        return quantile_time(front.station(costs.encoder.curve, encoders), front.jobs, 10, QUANTILE) + (
            quantile_time(back.station(costs.decoder.curve, decoders), back.jobs, 50, QUANTILE)
        )

    encoders, decoders = plan.encoder.replicas, plan.decoder.replicas
    assert time(encoders, decoders) == pytest.approx(plan.latency)
    for fewer_encoders, fewer_decoders in ((encoders - 1, decoders), (encoders, decoders - 1)):
        too_few = fewer_encoders < cheap.encoder.replicas or fewer_decoders < cheap.decoder.replicas
        assert too_few or time(fewer_encoders, fewer_decoders) > latency


def test_spare_replicas_come_on_top(costs: StageCosts) -> None:
    demand = Demand(live_streams=700)
    plain, spare = make_plan(costs, demand, Target()), make_plan(costs, demand, Target(spare=2))
    for tier in ("gateway", "encoder", "decoder"):
        assert getattr(spare, tier).replicas == getattr(plain, tier).replicas + 2
        assert getattr(spare, tier).utilization == getattr(plain, tier).utilization


@pytest.mark.parametrize(
    ("demand", "target", "message"),
    [
        (Demand(), Target(), "needs live streams or hours"),
        (Demand(live_streams=-1, audio_hours=5), Target(), "needs live streams or hours"),
        (Demand(live_streams=1, peak_factor=0.5), Target(), "peak factor"),
        (Demand(live_streams=1), Target(utilization=1.0), "between 0 and 1"),
        (Demand(live_streams=1), Target(spare=-1), "spares"),
        (Demand(live_streams=1), Target(latency=0.1), "takes 150 ms"),  # 10 / 400 + 50 / 400
        (Demand(live_streams=1e7), Target(), "replicas"),
    ],
)
def test_what_cannot_be_planned_is_said(
    costs: StageCosts, demand: Demand, target: Target, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        make_plan(costs, demand, target)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "format"),
        ({"gateway": None}, "gateway is not there"),
        ({"speech": {**COSTS["speech"], "segment_seconds": 0}}, "speech.segment_seconds is 0"),
        ({"live": {**COSTS["live"], "decoder_tokens": "many"}}, "live.decoder_tokens is no number"),
        ({"encoder": {"gpus": 1, "curve": []}}, "encoder.curve needs"),
        (
            {"encoder": {"gpus": 1, "curve": [{"in_flight": 1}]}},
            r"encoder.curve\[0\].audio_seconds_per_second",
        ),
        ({"encoder": {**COSTS["encoder"], "curve": COSTS["encoder"]["curve"][::-1]}}, "does not rise"),
    ],
)
def test_a_file_that_makes_no_sense_is_named_with_its_field(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        costs_of(tmp_path, **changes)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="cpu-demo"):
        load_costs("nowhere")


@pytest.mark.parametrize("name", packaged_names())
def test_packaged_costs_say_where_they_come_from_and_make_a_plan(name: str) -> None:
    about = json.loads((PACKAGED / f"{name}.json").read_text(encoding="utf-8"))["about"]
    assert {"machine", "model", "engine", "date"} <= about.keys()
    plan = make_plan(load_costs(name), Demand(live_streams=10, audio_hours=100), Target())
    assert max(plan.gateway.utilization, plan.encoder.utilization, plan.decoder.utilization) <= 0.7


def test_the_command_prints_the_same_plan_three_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs_of(tmp_path)
    command = ["plan", "--live", "700", "--costs", str(tmp_path / "costs.json"), "--spare", "1"]
    assert main([*command, "--format", "json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["encoder"]["replicas"] == record["values"]["encoder"]["replicas"] == 6
    assert main([*command, "--format", "helm"]) == 0
    values = capsys.readouterr().out
    assert main(command) == 0
    table = capsys.readouterr().out
    assert table.endswith(values)
    assert [line.split()[:3] for line in table.splitlines()[1:4]] == [
        ["gateway", "21", "0"],
        ["encoder", "6", "6"],
        ["decoder", "3", "6"],
    ]


def test_a_command_without_a_load_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 2
    assert "tandem plan: a plan needs live streams or hours" in capsys.readouterr().err
    assert main(["plan", "--hours", "5e-324"]) == 2


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--live", "nan"),
        ("--live", "-1"),
        ("--live", "1e308"),
        ("--hours", "inf"),
        ("--peak", "0.5"),
        ("--recording", "0"),
        ("--utilization", "1e-320"),
        ("--latency-ms", "nan"),
        ("--spare", "-1"),
    ],
)
def test_a_flag_without_a_sensible_number_is_bad_usage(
    capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--live", "5", f"{flag}={value}"])
    assert ended.value.code == 2
    assert f"tandem plan: error: argument {flag}: {value} is " in capsys.readouterr().err


def test_a_target_that_cannot_be_met_is_no_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--live", "1", "--latency-ms", "1"]) == 1
    assert "tandem plan: no number of replicas gives 1 ms" in capsys.readouterr().err


def test_the_table_of_the_page_is_what_the_packaged_costs_say() -> None:
    page = Path(__file__).parents[3] / "docs" / "scaling.md"
    rows = re.findall(
        r"^\| (?:([\d,]+) live streams)?(?: and )?(?:([\d,]+) hours.*?)? \| (\d+) of (\d+) cores? "
        r"\| (\d+) \| (\d+) \| (\d+) \| (\d+) ms \|$",
        page.read_text(encoding="utf-8"),
        re.M,
    )
    assert len(rows) == 4
    for live, hours, *said in rows:
        demand = Demand(*(float(number.replace(",", "") or 0) for number in (live, hours)))
        plan = make_plan(load_costs("h200-published-sizes"), demand, Target(latency=0.5, spare=1))
        replicas = [plan.gateway.replicas, plan.cores, plan.encoder.replicas, plan.decoder.replicas]
        assert [int(number) for number in said] == [*replicas, plan.gpus, round(plan.latency * 1000)]
