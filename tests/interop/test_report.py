"""How cells are judged and shown. Nothing foreign runs here."""

from __future__ import annotations

from datetime import date

import pytest

from tests.interop import report
from tests.interop.matrix import judge, scenarios
from tests.interop.model import Cell, Deviation, Feature, Protocol, Role, Status
from tests.interop.peers import all_peers

KNOWN = Deviation(Role.PROXY, Protocol.IP, Feature.MTU, "no packet", "the peer sends no PTBs", "RFC 9484 §7.2.1")


def cell(engine: str, feature: Feature, status: Status, detail: str = "") -> Cell:
    return Cell("gopher", Role.PROXY, Protocol.IP, engine, feature, status, detail)


@pytest.mark.parametrize(
    ("status", "detail", "known", "expected"),
    [
        (Status.OK, "5 ms", None, Status.OK),
        (Status.FAIL, "no packet of 1400 bytes", None, Status.FAIL),
        (Status.FAIL, "no packet of 1400 bytes", KNOWN, Status.DEVIATION),
        (Status.FAIL, "it crashed", KNOWN, Status.FAIL),
        (Status.OK, "1400 out", KNOWN, Status.FAIL),
    ],
)
def test_a_deviation_explains_its_own_symptom_and_must_not_pass(
    status: Status, detail: str, known: Deviation | None, expected: Status
) -> None:
    judged, words = judge(status, detail, known)
    assert judged is expected
    if judged is Status.DEVIATION:
        assert words == "the peer sends no PTBs (RFC 9484 §7.2.1)"


def test_a_row_holds_both_engines() -> None:
    cells = [
        cell("aioquic", Feature.HANDSHAKE, Status.OK),
        cell("aioquic", Feature.MTU, Status.OK),
        cell("aioquic", Feature.AUTH, Status.SKIPPED, "knows no credentials"),
        cell("qh3", Feature.HANDSHAKE, Status.OK),
        cell("qh3", Feature.MTU, Status.FAIL, "no packet"),
        cell("qh3", Feature.AUTH, Status.SKIPPED, "knows no credentials"),
    ]
    notes = report.Notes()
    ((key, texts),) = report.rows(cells, notes)
    by_feature = dict(zip(Feature, texts, strict=True))
    assert key == ("gopher", Role.PROXY, Protocol.IP)
    assert by_feature[Feature.HANDSHAKE] == ("ok", Status.OK)
    assert by_feature[Feature.MTU] == ("ok / FAIL [1]", Status.FAIL)
    assert by_feature[Feature.AUTH] == ("– [2]", Status.SKIPPED)
    assert by_feature[Feature.ECHO] == ("", Status.SKIPPED)
    assert notes.texts == ["no packet", "knows no credentials"]


def test_the_block_of_the_readme() -> None:
    block = report.markdown([cell("qh3", Feature.MTU, Status.FAIL, "a | b")], all_peers(), date(2026, 11, 23))
    assert block.startswith("2026-11-23, masque-connect ")
    assert "1. a \\| b" in block
    assert "- connect-ip-go names 1280 in every Packet Too Big" in block
    widths = {line.replace("\\|", "").count("|") for line in block.splitlines() if line.startswith("|")}
    assert widths == {4 + len(Feature)}
    text = f"# One\n{report.BEGIN}\nold\n{report.END}\n# Two\n"
    once = report.replace_block(text, block)
    assert once == f"# One\n{report.BEGIN}\n{block}\n{report.END}\n# Two\n"
    assert report.replace_block(once, block) == once


@pytest.mark.parametrize(
    "text", ["", report.BEGIN, f"{report.END}{report.BEGIN}", f"{report.BEGIN}{report.END}{report.BEGIN}"]
)
def test_markers_must_be_one_pair(text: str) -> None:
    with pytest.raises(ValueError, match="interop:begin"):
        report.replace_block(text, "table")


def test_json_has_every_cell_and_every_deviation() -> None:
    peers = all_peers()
    document = report.to_json([cell("qh3", Feature.MTU, Status.OK, "1400 out")], peers, date(2026, 11, 23))
    assert document["summary"] == {"ok": 1, "deviation": 0, "fail": 0, "skipped": 0}
    assert document["cells"][0]["detail"] == "1400 out"
    assert len(document["deviations"]) == sum(len(peer.deviations) for peer in peers)


def test_peers_are_told_apart_and_unknown_ones_refused() -> None:
    names = [peer.name for peer in all_peers()]
    assert len(set(names)) == len(names)
    assert {scenario.peer.name for scenario in scenarios(["masque-go"])} == {"masque-go"}
    with pytest.raises(ValueError, match="no peer 'nobody'"):
        scenarios(["nobody"])


def test_every_deviation_names_its_clause() -> None:
    for peer in all_peers():
        assert all("RFC" in remark for remark in peer.remarks)
        for deviation in peer.deviations:
            assert "RFC" in deviation.clause and deviation.symptom
            assert deviation.protocol in (peer.proxies if deviation.role is Role.PROXY else peer.clients)
