"""`scripts/interop`: what it writes, and its exit status. Nothing foreign runs here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.interop import __main__ as command
from tests.interop import report
from tests.interop.matrix import QUICK, skipped
from tests.interop.model import Cell, Feature, Status
from tests.interop.stage import Scenario


@pytest.fixture(autouse=True)
def outcome(monkeypatch: pytest.MonkeyPatch) -> dict[Feature, Status]:
    """What comes of every cell; ok unless a test says otherwise."""
    outcome: dict[Feature, Status] = {}

    def run(scenario: Scenario, features: Iterable[Feature]) -> Iterator[Cell]:
        for feature in features:
            cell = skipped(scenario, feature, f"about {feature}")
            yield Cell(cell.peer, cell.role, cell.protocol, cell.engine, feature, outcome.get(feature, Status.OK))

    monkeypatch.setattr(command, "run", run)
    return outcome


@pytest.mark.parametrize(
    ("status", "code"), [(Status.OK, 0), (Status.DEVIATION, 0), (Status.SKIPPED, 0), (Status.FAIL, 1)]
)
def test_only_a_failure_is_one(outcome: dict[Feature, Status], status: Status, code: int) -> None:
    outcome[Feature.MTU] = status
    assert command.main(["--peer", "masque-go"]) == code


def test_json_on_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--peer", "masque-go", "--engine", "qh3", "--quick", "--json", "-"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert {cell["engine"] for cell in cells} == {"qh3"}
    assert {cell["feature"] for cell in cells} == set(QUICK)


def test_features_are_chosen_by_name(tmp_path: Path) -> None:
    file = tmp_path / "interop.json"
    assert command.main(["--peer", "masque-go", "--feature", "auth-refused", "--json", str(file)]) == 0
    assert {cell["feature"] for cell in json.loads(file.read_text())["cells"]} == {"auth refused"}


def test_the_readme_gets_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n")
    monkeypatch.setattr(command, "README", readme)
    assert command.main(["--peer", "masque-go", "--write-readme"]) == 0
    text = readme.read_text()
    assert text.startswith(f"above\n{report.BEGIN}\n") and text.endswith(f"{report.END}\nbelow\n")
    assert "| masque-go 0.6.0 (Go, quic-go 0.63) | proxy | connect-udp | ok |" in text and "old" not in text


def test_a_readme_without_markers_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    monkeypatch.setattr(command, "README", readme)
    with pytest.raises(SystemExit) as stopped:
        command.main(["--write-readme"])
    assert stopped.value.code == 2
    assert "interop:begin" in capsys.readouterr().err


def test_an_unknown_peer_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--peer", "nobody"])
    assert stopped.value.code == 2
    assert "no peer 'nobody'" in capsys.readouterr().err
