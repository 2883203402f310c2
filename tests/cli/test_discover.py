"""`discover` and `profile check`: what a person reads, what a script reads, and the schema that scripts may trust."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from masque_client.pvd.network import NetworkDiscovery
from masque_client.pvd.ra import PvdOption, RouterAdvertisement
from masque_client.testing.pvd_server import pvd_document
from masque_connect.discovery_json import describe
from masque_connect.exit_codes import ExitCode
from tests.cli.commands import Outcome, failed
from tests.cli.conftest import Run
from tests.cli.proxies import Proxies

MAIN = {"protocol": "https-connect", "proxy": "localhost:443", "identifier": "main", "alpn": ["h2"]}
UDP = {"protocol": "connect-udp", "proxy": "https://localhost/u{?target_host,target_port}"}
RULES = [
    {"domains": ["status.corp.example"], "proxies": []},
    {"domains": ["*.corp.example"], "ports": ["443"], "proxies": ["main"]},
    {"ports": [80], "proxies": []},
]
ENTRIES: list[Any] = [MAIN, UDP, "nonsense"]
DOCUMENT = pvd_document("localhost", ENTRIES, dnsZones=["corp.example"], surprise=1, **{"proxy-match": RULES})

SCHEMA = json.loads((files("masque_client") / "schemas" / "discover.schema.json").read_text())


def validated(outcome: Outcome) -> dict[str, Any]:
    """The JSON of a successful run, which obeys the schema and has no field that the schema does not publish."""
    assert outcome.code == 0, outcome.stderr
    value: dict[str, Any] = json.loads(outcome.stdout)
    validate(value)
    return value


def validate(value: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(closed(SCHEMA)).validate(value)


def closed(schema: Any) -> Any:
    """The schema with every object closed: readers must ignore unknown fields, but we must publish all of ours."""
    if isinstance(schema, dict):
        copy = {key: closed(value) for key, value in schema.items()}
        return copy | {"additionalProperties": False} if "properties" in schema else copy
    return [closed(item) for item in schema] if isinstance(schema, list) else schema


def test_a_person_reads_what_is_offered_and_what_was_ignored(
    run: Run, proxies: Proxies, ca: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with proxies.pvd(DOCUMENT) as url:
        outcome = run("discover", url, *ca, "--for", "www.corp.example:443")
    assert outcome.code == 0
    for words in (
        *("localhost, valid until", "usable for 23 h", "fetched at"),
        *("https-connect", "localhost:443", "h2", "rule 2 (main)", "connect-udp", "any", "anything"),
        *("*.corp.example", "port 443", "none of these proxies", "DNS zones: corp.example"),
        *("ignored /proxies/2: must be an object", "ignored /proxy-match/2: /ports/0", "ignored /surprise"),
        *("tcp www.corp.example port 443 goes through a proxy", "first: localhost:443"),
        *("rule 1: none of its domains", "rule 2: decides"),
    ):
        assert words in outcome.stdout, outcome.stdout


@pytest.mark.parametrize(
    ("destination", "verdict", "rule", "chosen"),
    [
        ("status.corp.example", "excluded", "/proxy-match/0", []),
        ("udp:[2001:db8::1]:53", "proxy", None, [[UDP["proxy"]]]),
    ],
)
def test_a_script_reads_a_decision(
    run: Run, proxies: Proxies, ca: tuple[str, str], destination: str, verdict: str, rule: str | None, chosen: Any
) -> None:
    with proxies.pvd(DOCUMENT) as url:
        decision = validated(run("discover", url, *ca, "--json", "--for", destination))["decision"]
    assert (decision["verdict"], decision["rule"], decision["proxies"]) == (verdict, rule, chosen)
    assert decision["trace"]


def test_every_published_field_is_there(run: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    with proxies.pvd(DOCUMENT) as url:
        value = validated(run("discover", url, *ca, "--json", "--explain"))
    assert sorted(value) == sorted(SCHEMA["properties"]) == sorted(SCHEMA["required"])
    assert value["dns_hint"] is not None and value["decision"] is None and value["network"] is None
    assert [proxy["carries"] for proxy in value["proxies"]] == [["tcp"], ["udp"]]
    assert [ignored["pointer"] for ignored in value["ignored"]] == ["/proxies/2", "/proxy-match/2", "/surprise"]


PUBLISHED_IN_VERSION_1 = {
    *("schema_version", "source", "identifier", "expires", "usable_until", "received_at", "from_cache", "proxies"),
    *("rules", "proxy_configuration_ignored", "dns_zones", "prefixes", "no_internet", "split_dns_claims", "ignored"),
    *("warnings", "dns_hint", "network", "decision", "protocol", "proxy", "host", "port", "alpn", "carries"),
    *("named_by", "pointer", "domains", "subnets", "ports", "interface", "router", "pvd_id", "has_document"),
    *("sequence_number", "delay", "resolvers", "destination", "verdict", "rule", "trace", "reason", "resolver"),
    *("parent", "subdomains"),
}


def test_no_field_disappears_within_a_version() -> None:
    """Add new ones to the list; a name may only leave it together with `schema_version`."""
    names: set[str] = set()

    def collect(schema: Any) -> None:
        if isinstance(schema, dict):
            names.update(schema.get("properties", {}))
            assert set(schema.get("required", ())) == set(schema.get("properties", ()))
            for value in schema.values():
                collect(value)
        elif isinstance(schema, list):
            for item in schema:
                collect(item)

    collect(SCHEMA)
    assert names == PUBLISHED_IN_VERSION_1
    assert SCHEMA["properties"]["schema_version"] == {"const": 1}


def test_a_network_without_a_document_fits_the_schema() -> None:
    option = PvdOption("net.example", False, False, 0, 0, None)
    advertisement = RouterAdvertisement(IPv6Address("fe80::1"), 1800, (IPv6Network("2001:db8::/64"),), (), option)
    validate(json.loads(json.dumps(describe(None, network=NetworkDiscovery("eth0", advertisement, None)))))


def test_a_kept_document_is_shown_until_a_refresh_is_wanted(
    run: Run, proxies: Proxies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --ca; the system's CAs are replaced in the environment, as an administrator would."""
    monkeypatch.setenv("SSL_CERT_FILE", str(proxies.authority.ca_file))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def from_cache(*options: str) -> bool:
        return bool(validated(run("discover", url, "--json", *options))["from_cache"])

    with proxies.pvd(DOCUMENT) as url:
        assert [from_cache(), from_cache(), from_cache("--refresh")] == [False, True, False]
    assert from_cache()  # nobody serves it any more
    failed(
        run("discover", url, "--refresh"),
        ExitCode.UNREACHABLE,
        error="cannot be reached",
        hint="check",
    )


def test_what_an_own_ca_vouched_for_is_not_kept(
    run: Run, proxies: Proxies, ca: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with proxies.pvd(DOCUMENT) as url:
        assert run("discover", url, *ca).code == 0
    assert list(tmp_path.rglob("*.json")) == []


@pytest.mark.parametrize("arguments", [("discover",), ("discover", "a.example", "--interface", "lo")])
def test_exactly_one_place_is_named(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).code == ExitCode.USAGE


def test_an_interface_that_does_not_exist(run: Run) -> None:
    outcome = run("discover", "--interface", "nowhere0")
    failed(outcome, ExitCode.BAD_CONFIGURATION, error="no interface nowhere0", hint="ip -brief link")


# --- profile check ----------------------------------------------------------------------------------------------------


def written(path: Path, document: dict[str, Any]) -> str:
    path.write_text(json.dumps(document, indent=2))
    return str(path)


def test_a_clean_file(run: Run, tmp_path: Path) -> None:
    file = written(tmp_path / "pvd.json", pvd_document("localhost", [UDP]))
    outcome = run("profile", "check", file, "--identifier", "localhost")
    assert (outcome.code, outcome.stdout) == (0, "")
    assert outcome.stderr == "0 errors, 0 warnings, 0 notes\n"


def test_every_problem_of_a_file_is_named_with_its_line(run: Run, tmp_path: Path) -> None:
    file = written(tmp_path / "pvd.json", DOCUMENT)
    outcome = run("profile", "check", file)
    assert outcome.code == ExitCode.BAD_CONFIGURATION
    lines = file_lines = outcome.stdout.splitlines()
    text = (tmp_path / "pvd.json").read_text().splitlines()
    (rule,) = (line for line in file_lines if "[/proxy-match/2/ports/0]" in line)
    number, column = (int(part) for part in rule.removeprefix(f"{file}:").split(":")[:2])
    assert text[number - 1][column - 1 :] == "80"
    assert any(": error: must be an object, not a string" in line for line in lines)
    assert any(": warning: not a known key: a typing error?" in line for line in lines)
    assert "2 errors, 1 warnings" in outcome.stderr


def test_json_of_a_check(run: Run, tmp_path: Path) -> None:
    file = written(tmp_path / "pvd.json", DOCUMENT)
    outcome = run("profile", "check", file, "--json", "--identifier", "other.example")
    value = json.loads(outcome.stdout)
    assert (outcome.code, value["usable"], value["counts"]["error"]) == (ExitCode.BAD_CONFIGURATION, False, 3)
    (problem,) = (problem for problem in value["problems"] if problem["pointer"] == "/identifier")
    assert (problem["severity"], problem["line"], problem["column"]) == ("error", 2, 3)
    assert 'but "other.example" was asked' in problem["message"]


def test_how_a_document_is_served_is_checked_too(run: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    with proxies.pvd(pvd_document("other.example", [UDP]), content_type="application/json") as url:
        outcome = run("profile", "check", url, *ca, "--json")
    assert outcome.code == ExitCode.BAD_CONFIGURATION
    errors = [problem for problem in json.loads(outcome.stdout)["problems"] if problem["severity"] == "error"]
    assert [(problem["pointer"], problem["line"]) for problem in errors] == [("", None), ("/identifier", 1)]


def test_remarks_on_a_served_document_are_no_errors(run: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = [("cache-control", "no-store"), ("date", "Thu, 01 Jan 2026 00:00:00 GMT"), ("set-cookie", "a=b")]
    with proxies.pvd(pvd_document("localhost", [UDP], expires=soon), headers=fields) as url:
        outcome = run("profile", "check", url, *ca)
    assert outcome.code == 0
    for words in ("no-store", "differs from this machine's", "sets a cookie", "expires in 29 minutes"):
        assert words in outcome.stdout, outcome.stdout


def test_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    failed(run("profile", "check", tmp_path / "x.json"), ExitCode.BAD_CONFIGURATION, error="cannot read", hint="give a")


def test_a_networks_document(run: Run, tmp_path: Path) -> None:
    file = written(tmp_path / "pvd.json", pvd_document("localhost", [UDP]) | {"prefixes": ["2001:db8::/48"]})
    codes = [run("profile", "check", file, *more).code for more in ((), ("--network-prefix", "2001:db8:0:1::/64"))]
    assert codes == [ExitCode.BAD_CONFIGURATION, 0]
    bad = run("profile", "check", file, "--network-prefix", "10.0.0.0/8")
    failed(bad, ExitCode.BAD_CONFIGURATION, error="--network-prefix", hint="2001:db8:1::/64")
