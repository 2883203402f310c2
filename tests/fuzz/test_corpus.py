"""The kept inputs, seeds and past findings, through every fuzz target; without atheris, so that they stay harmless."""

from __future__ import annotations

import importlib

import pytest

from tests.fuzz.harness import Harness, Report
from tests.fuzz.targets import CORPUS, TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs(name: str, tmp_path) -> None:
    target = TARGETS[name]
    fuzz_one = importlib.import_module(target.module).make(*target.arguments)
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    reports: list[Report] = []
    harness = Harness(name, fuzz_one, tmp_path, runs=len(inputs), finish=reports.append)
    for path in inputs:
        harness(path.read_bytes())
    assert reports[0].executions == len(inputs)
    assert not reports[0].findings, "\n".join(path.read_text() for path in tmp_path.glob("*.txt"))


def test_every_target_has_a_corpus_and_nothing_else_has() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
