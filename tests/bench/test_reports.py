"""From numbers to the document, its tables, the chart and the README's block."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.bench.__main__ import combine, main
from tests.bench.bars import Bar, all_bars
from tests.bench.chart import draw
from tests.bench.measure import Run
from tests.bench.report import BEGIN, END, markdown_report, replace_block, text_report
from tests.bench.results import Results
from tests.bench.rows import Group, Row, all_rows

ABOUT = {
    "date": "2026-01-02",
    "command": "scripts/bench --runs 2",
    "machine": {"cpu": "A & B <fast>", "cores": 2, "memory_gib": 4, "kernel": "6.1"},
    "versions": {"python": "3.11"},
    "settings": {"runs": 2},
}
SVG = "{http://www.w3.org/2000/svg}"


def numbers(speed: float, rtt_ms: float = 1.0) -> dict[str, float]:
    """One run of a tunnel."""
    keys = ("tcp1_down_gbit_s", "tcp1_up_gbit_s", "tcp4_down_gbit_s", "tcp4_up_gbit_s", "udp64_pps", "udp1200_pps")
    rtts = ("rtt_idle_p50_ms", "rtt_idle_p99_ms", "rtt_load_p50_ms", "rtt_load_p99_ms")
    return dict.fromkeys(keys, speed) | dict.fromkeys(rtts, rtt_ms) | {"client_cpu_s_per_gb_up": 1 / speed}


@pytest.fixture
def document() -> dict[str, Any]:
    """Two rounds of every row; ours with qh3 is six times the others; one row is absent, one failed once."""
    results = Results(all_rows())
    for row in results.rows:
        if row.absent or row.key == "pair/qh3-pure":
            results.absent[row.key] = "no | compiler"
            continue
        speed = 6.0 if row.name == "qh3" else 1.0
        results.add(row, 1, Run(numbers(speed, 0.1 if row.key == "bare" else 0.4)))
        results.add(row, 2, Run(numbers(speed * 2, 0.2 if row.key == "bare" else 1.5)))
    results.add(Row(Group.PAIR, "wireguard-go"), 3, Run(failures=["start: it died"]))
    return json.loads(json.dumps(results.document(**ABOUT)))  # type: ignore[no-any-return]


def row_of(document: dict[str, Any], key: str) -> dict[str, Any]:
    return next(row for row in document["rows"] if row["key"] == key)


def test_row_keys_are_unique_and_every_bar_names_rows_that_exist() -> None:
    keys = [row.key for row in all_rows()]
    assert len(keys) == len(set(keys))
    assert {bar.row for bar in all_bars()} | {bar.peer for bar in all_bars()} <= set(keys)


def test_added_rtt_is_beyond_the_bare_path_of_the_same_round(document: dict[str, Any]) -> None:
    added = row_of(document, "pair/qh3")["summary"]["added_rtt_idle_p99_ms"]
    assert (added["min"], added["max"]) == (0.3, 1.3)
    assert not any(key.startswith("added") for key in row_of(document, "bare")["summary"])


def test_absent_and_failed_rows_stay_in_the_document(document: dict[str, Any]) -> None:
    assert row_of(document, "pair/qh3-pure")["absent"] == "no | compiler"
    assert row_of(document, "pair/wireguard-go")["failures"] == ["round 3: start: it died"]
    assert row_of(document, "go/sing-box")["summary"] == {}


def test_ratios_name_both_rows(document: dict[str, Any]) -> None:
    ratios = {(ratio["row"], ratio["peer"], ratio["metric"]): ratio["median"] for ratio in document["ratios"]}
    assert ratios["pair/qh3", "pair/connect-ip-go", "tcp1_up_gbit_s"] == 6.0
    assert ratios["udp-go/qh3", "udp-go/masque-go", "udp64_pps"] == 6.0
    assert not any(row == peer for row, peer, _ in ratios)


def test_bars_are_judged(document: dict[str, Any]) -> None:
    bars = {bar["name"]: bar for bar in document["bars"]}
    assert bars["qh3 pair over the connect-ip-go pair, TCP up"]["ok"] is True
    assert bars["client CPU per GB against the same Go proxy, up"]["ok"] is True
    assert bars["client CPU per GB against the same Go proxy, down"]["ok"] is None  # nobody measured it
    assert bars["added rtt p99, idle, both ends ours"]["ok"] is False  # (0.3 + 1.3) / 2 ms


def test_a_bar_at_its_limit_is_reached() -> None:
    rounds = {"mine": {1: {"x": 3.0}}, "theirs": {1: {"x": 2.0}}}
    assert Bar("b", "mine", "theirs", "x", 1.5).judge(rounds)["ok"] is True
    assert Bar("b", "mine", "theirs", "x", 1.0, at_least=False, is_difference=True).judge(rounds)["ok"] is True
    assert Bar("b", "mine", "theirs", "x", 1.6).judge(rounds)["ok"] is False


def test_text_says_all(document: dict[str, Any]) -> None:
    text = text_report(document)
    assert "1.50 (1.00–2.00)" in text
    assert "absent: no | compiler" in text
    assert "pair/wireguard-go: round 3: start: it died" in text
    assert "scripts/bench --runs 2" in text


def test_markdown_tables_are_rectangular(document: dict[str, Any]) -> None:
    tables = [part.splitlines() for part in markdown_report(document).split("\n\n") if part.startswith("|")]
    assert len(tables) == 5
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1, lines


def test_the_readme_block_is_replaced_and_nothing_else() -> None:
    readme = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    replaced = replace_block(readme, "new\n")
    assert replaced == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert replace_block(replaced, "new") == replaced


@pytest.mark.parametrize("readme", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_readme_without_its_marks_is_left_alone(readme: str) -> None:
    with pytest.raises(ValueError, match="bench:begin"):
        replace_block(readme, "new")


def test_the_chart_is_well_formed_and_has_a_number_for_each_bar(document: dict[str, Any]) -> None:
    root = ElementTree.fromstring(draw(document))
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("x") == "240"]
    labels = [text.text for text in root.iter(f"{SVG}text")]
    measured = [row for row in document["rows"] if row["group"] in ("pair", "go") and row["summary"]]
    assert len(bars) == 2 * (len(measured) + 1)  # the Go proxy's own client is shown twice
    assert labels.count("9.00") == 4
    assert any("A & B <fast>" in (label or "") for label in labels)
    width = float(root.get("width", 0))
    assert all(float(bar.get("x", 0)) + float(bar.get("width", 0)) < width for bar in bars)


def test_a_chart_of_nothing_is_still_a_chart() -> None:
    ElementTree.fromstring(draw({"rows": [], **ABOUT}))


def test_an_earlier_result_is_reported_again(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, chart = tmp_path / "bench.json", tmp_path / "bench.svg"
    source.write_text(json.dumps(document))
    assert main(["--from", str(source), "--svg", str(chart)]) == 1  # a row had failed
    assert capsys.readouterr().out == text_report(document)
    assert chart.read_text() == draw(document)


def test_a_group_of_a_later_document_replaces_the_earlier_ones(document: dict[str, Any]) -> None:
    again = Results(all_rows())
    for key, speed in (("bare", 100.0), ("udp-go/qh3", 30.0), ("udp-go/masque-go", 10.0)):
        row = next(row for row in again.rows if row.key == key)
        again.add(row, 1, Run(numbers(speed)))
    later = json.loads(json.dumps(again.document(**ABOUT | {"command": "scripts/bench --rows 'udp-go/*'"})))
    both = combine([document | {"seconds": 1}, later])
    assert both["command"] == "scripts/bench --runs 2, then scripts/bench --rows 'udp-go/*'"
    assert row_of(both, "udp-go/qh3")["summary"]["udp64_pps"]["median"] == 30.0
    assert row_of(both, "udp-go/aioquic")["summary"] == {}  # not measured again: not comparable with those that were
    for key in ("bare", "pair/qh3", "udp-ours/qh3"):
        assert row_of(both, key) == row_of(document, key)
    ratio = next(ratio for ratio in both["ratios"] if (ratio["row"], ratio["metric"]) == ("udp-go/qh3", "udp64_pps"))
    assert ratio["median"] == 3.0
