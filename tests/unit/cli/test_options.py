"""What people type: pins, header files, keys."""

from __future__ import annotations

import argparse
import base64
import hashlib
from pathlib import Path

import pytest

from masque_client.errors import ConfigurationError
from masque_connect.main import build_parser
from masque_connect.options import authenticator, parse_pin, read_headers, tls_configuration

DIGEST = hashlib.sha256(b"a key").digest()


@pytest.mark.parametrize(
    "text",
    [
        "sha256/" + base64.b64encode(DIGEST).decode(),
        "sha256//" + base64.b64encode(DIGEST).decode(),  # curl's form
        DIGEST.hex(),
        DIGEST.hex().upper(),
    ],
)
def test_pin_forms(text: str) -> None:
    assert parse_pin(text) == DIGEST


@pytest.mark.parametrize(
    "text", ["", "sha256/", "sha256/AAAA", "sha1/AAAA", "zz" * 32, "sha256/!!!!", DIGEST.hex()[:-2]]
)
def test_what_is_no_pin(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no pin") as caught:
        parse_pin(text)
    assert "SHA-256" in caught.value.hint


def header_file(directory: Path, text: str, mode: int = 0o600) -> Path:
    file = directory / "headers"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_headers_are_read_in_lower_case_and_comments_skipped(tmp_path: Path) -> None:
    file = header_file(tmp_path, "# mine\nAuthorization: Bearer abc:def\n\nx-Team:  blue \n")
    assert read_headers(file) == ((b"authorization", b"Bearer abc:def"), (b"x-team", b"blue"))


def test_no_header_file_means_no_headers() -> None:
    assert read_headers(None) == ()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_header_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match="read by others") as caught:
        read_headers(header_file(tmp_path, "a: b", mode))
    assert caught.value.hint.startswith("chmod 600")


@pytest.mark.parametrize("line", ["Bearer secret", "na me: secret", ": secret", "x: sécret", "x: se\x01cret"])
def test_a_bad_header_line_is_named_by_number_and_not_quoted(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigurationError, match="line 2 of") as caught:
        read_headers(header_file(tmp_path, f"ok: 1\n{line}\n"))
    assert "secret" not in str(caught.value) + caught.value.hint


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_headers(tmp_path / "nothing")


def namespace(**values: object) -> argparse.Namespace:
    return argparse.Namespace(**{"ca": None, "pin": None, "cert": None, "key": None, **values})


def test_certificate_and_key_belong_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="belong together"):
        tls_configuration(namespace(cert=tmp_path / "c.pem"))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.touch()
    key.touch(mode=0o644)
    key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="read by others"):
        tls_configuration(namespace(cert=certificate, key=key))


def test_everything_together(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.touch()
    key.touch(mode=0o600)
    tls = tls_configuration(namespace(ca=certificate, pin=DIGEST.hex(), cert=certificate, key=key))
    assert (tls.ca_file, tls.pin, tls.certificate, tls.key) == (certificate, DIGEST, certificate, key)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--user", "x"], "belong together"),
        (["--user", "a:b", "--password-file", "FILE"], "colon"),
        (["--token-file", "FILE", "--token-command", "x"], "several credentials"),
        (["--token-file", "/nowhere/token"], "cannot read /nowhere/token"),
        (["--token-file", "OPEN"], "may be read by others"),
        (["--user", "x", "--password-file", "OPEN"], "may be read by others"),
        (["--token-command", "'"], "quote that never ends"),
        (["--token-command", ""], "is empty"),
        (["--token-file", "FILE", "--auth-origin", "https://"], "--auth-origin"),
        (["--token-file", "FILE", "--header-file", "FIELDS"], "given twice"),
    ],
)
@pytest.mark.parametrize("command", [["udp", "1=a.example:1", "--proxy"], ["socks", "--proxy"], ["up"]])
def test_credentials_that_cannot_work(command: list[str], words: list[str], error: str, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("FILE", "OPEN", "FIELDS")}
    for name, file in files.items():
        file.write_text("authorization: hunter2" if name == "FIELDS" else "hunter2")
        file.chmod(0o640 if name == "OPEN" else 0o600)
    arguments = [*command, "proxy.example", *(str(files.get(word, word)) for word in words)]
    with pytest.raises(ConfigurationError, match=error) as caught:
        authenticator(build_parser().parse_args(arguments))
    assert "hunter2" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(("given", "meant"), [([], None), (["--grease"], True), (["--no-grease"], False)])
def test_grease_may_be_wanted_refused_or_not_mentioned(given: list[str], meant: bool | None) -> None:
    assert build_parser().parse_args(["up", "proxy.example", *given]).grease is meant
