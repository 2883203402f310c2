"""The URI templates that name a proxy's tunnel resources (RFC 6570; restricted by RFC 9298 §2 and RFC 9484 §3).

A parsed template is a valid one. The client expands it into a request target; a proxy matches a request path against
its own with `match`. The `uritemplate` library does the expansion.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

import uritemplate

from masque_client.errors import TemplateError
from masque_client.protocol.scope import WILDCARD, IpScope, UdpTarget

DEFAULT_UDP_PATH = "/.well-known/masque/udp/{target_host}/{target_port}/"
DEFAULT_IP_PATH = "/.well-known/masque/ip/{target}/{ipproto}/"
HTTPS_PORT = 443

_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_SPLIT = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>.*)")
_VARIABLE = re.compile(r"(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})+(?:\.(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})+)*")
_LITERAL = re.compile(r"(?:[^\x00-\x20\"%<>\\^`{|}\x7f-\U0010ffff]|%[0-9A-Fa-f]{2})*")
"""RFC 6570 §2.1 with erratum 6937: the apostrophe is a legal literal."""
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[A-Za-z0-9._~-]+)(?::(?P<port>[0-9]{1,5}))?")
_VALUE = "([^/?&,#]*)"


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """The pseudo-header fields that name a tunnel resource. `authority` is the proxy's, never the target's."""

    scheme: str
    authority: str
    path: str


@dataclass(frozen=True, slots=True)
class _Template:
    """What both kinds share. Construct with `parse`.

    Attributes:
        text: the template as given.
        authority: byte for byte as given, an explicit `:443` included: some proxies compare it as a string.
        host: where to connect; IPv6 without brackets.
        port: 443 unless given.
        path: path and query, still with expressions.
    """

    text: str
    scheme: str
    authority: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Check a template as RFC 9298 §2 and RFC 9484 §3 demand, before any request is sent.

        Raises:
            TemplateError: names the broken rule.
        """
        if not text.isascii() or any(not "\x21" <= character <= "\x7e" for character in text):
            raise TemplateError(f"{text!r} has characters outside printable ASCII")
        split = _SPLIT.fullmatch(text)
        if split is None:
            raise TemplateError(f"{text!r} is not an absolute https URI template")
        scheme, authority, path = split["scheme"], split["authority"], split["path"]
        if scheme.lower() != "https":
            raise TemplateError(f"{text!r} is not https; tunnels need TLS")
        host, port = _parse_authority(text, authority)
        if not path.startswith("/"):
            raise TemplateError(f"{text!r} has no path before its query or its end")
        if "#" in _EXPRESSION.sub("", path):
            raise TemplateError(f"{text!r} has a fragment")
        cls._check_variables(text, _check_expressions(text, path))
        return cls(text, "https", authority, host, port, path)

    @classmethod
    def _check_variables(cls, text: str, names: set[str]) -> None:
        """Raise a `TemplateError` when a variable that this kind needs is missing."""

    def match(self, path: str) -> dict[str, str] | None:
        """Proxy: the variables in a request's `:path`, percent-decoded once; None when it is not for us.

        Values are not checked further: see `UdpTarget.parse` and `IpScope.parse`.
        """
        names: list[str] = []
        pattern = ""
        position = 0
        for expression in _EXPRESSION.finditer(self.path):
            pattern += re.escape(self.path[position : expression.start()])
            pattern += _match_pattern(expression[1], names)
            position = expression.end()
        pattern += re.escape(self.path[position:])
        matched = re.fullmatch(pattern, path)
        if matched is None:
            return None
        try:
            values = [None if value is None else unquote(value, errors="strict") for value in matched.groups()]
        except UnicodeDecodeError:
            return None
        return {name: value for name, value in zip(names, values, strict=True) if value is not None}

    def _expand(self, values: Mapping[str, str], *, escape_wildcard: bool = True) -> RequestTarget:
        def expand_expression(expression: re.Match[str]) -> str:
            expanded = str(uritemplate.URITemplate(expression[0]).expand(dict(values)))
            # Nothing else expands to %2A: `scope` lets no other value contain an asterisk.
            return expanded if escape_wildcard else expanded.replace("%2A", WILDCARD)

        return RequestTarget(self.scheme, self.authority, _EXPRESSION.sub(expand_expression, self.path))


class UdpTemplate(_Template):
    """Where CONNECT-UDP tunnels are asked for."""

    __slots__ = ()

    @classmethod
    def _check_variables(cls, text: str, names: set[str]) -> None:
        if missing := sorted({"target_host", "target_port"} - names):
            raise TemplateError(f"{text!r} lacks the variable {missing[0]}")

    def expand(self, target_host: str, target_port: int) -> RequestTarget:
        """The request target for one UDP destination: an IP literal without brackets, or a name.

        Raises:
            ConfigurationError: the destination is not one.
        """
        target = UdpTarget.parse(target_host, target_port)
        return self._expand({"target_host": target.host, "target_port": str(target.port)})


class IpTemplate(_Template):
    """Where CONNECT-IP tunnels are asked for. Both variables are optional, in the template and in the request."""

    __slots__ = ()

    def expand(
        self, target: str | None = WILDCARD, ipproto: str | int | None = WILDCARD, *, escape_wildcard: bool = False
    ) -> RequestTarget:
        """The request target for a scope; `*` is unrestricted, None leaves the variable undefined.

        Strict RFC 6570 expansion writes `*` as `%2A`, the figures of RFC 9484 as itself, and proxies may match only
        one: send the bare form first and try `escape_wildcard` after a 400 or 404.

        Raises:
            ConfigurationError: the scope breaks RFC 9484 §4.6.
        """
        scope = IpScope.parse(target, ipproto)
        values = {}
        if target is not None:
            values["target"] = WILDCARD if scope.target is None else _text_of_target(target, scope)
        if ipproto is not None:
            values["ipproto"] = WILDCARD if scope.protocol is None else str(scope.protocol)
        return self._expand(values, escape_wildcard=escape_wildcard)


def default_udp_template(authority: str) -> UdpTemplate:
    """The template of a proxy of which only `host[:port]` is known (RFC 9298 §2)."""
    return UdpTemplate.parse(f"https://{authority}{DEFAULT_UDP_PATH}")


def default_ip_template(authority: str) -> IpTemplate:
    """The template of a proxy of which only `host[:port]` is known (RFC 9484 §3)."""
    return IpTemplate.parse(f"https://{authority}{DEFAULT_IP_PATH}")


def _text_of_target(target: str, scope: IpScope) -> str:
    """A prefix stays written as given (`192.0.2.1` without `/32`); a name takes its A-label form."""
    return scope.target if isinstance(scope.target, str) else target


def _parse_authority(text: str, authority: str) -> tuple[str, int]:
    if not authority:
        raise TemplateError(f"{text!r} has no authority")
    if "{" in authority:
        raise TemplateError(f"{text!r} has a variable outside path and query")
    if "@" in authority:
        raise TemplateError(f"{text!r} has user information")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise TemplateError(f"{authority!r} is not host[:port]")
    host, port = parts["host"], int(parts["port"] or HTTPS_PORT)
    if not 1 <= port <= 65535:
        raise TemplateError(f"{authority!r} has an impossible port")
    if not host.startswith("["):
        return host, port
    host = host[1:-1]
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise TemplateError(f"{authority!r} has no IPv6 address in its brackets") from None
    if "%" in host:
        raise TemplateError(f"{authority!r} has a zone id")
    return host, port


def _check_expressions(text: str, path: str) -> set[str]:
    """Check everything in braces and between; returns the variable names."""
    if not _LITERAL.fullmatch(_EXPRESSION.sub("", path)):
        raise TemplateError(f"{text!r} has unbalanced braces or an illegal character")
    names: set[str] = set()
    for expression in _EXPRESSION.findall(path):
        if expression[:1] in {"+", "#", ".", "/", ";", "=", ",", "!", "@", "|"}:
            raise TemplateError(f"{text!r} uses the operator {expression[0]!r}; only none, ? and & are allowed")
        for name in _variables(expression):
            if ":" in name or name.endswith("*"):
                raise TemplateError(f"{text!r} uses a level 4 modifier")
            if not _VARIABLE.fullmatch(name):
                raise TemplateError(f"{text!r} has the impossible variable name {name!r}")
            names.add(name)
    return names


def _variables(expression: str) -> list[str]:
    return (expression[1:] if expression[:1] in {"?", "&"} else expression).split(",")


def _match_pattern(expression: str, names: list[str]) -> str:
    """A regular expression for one expression; appends the names of its groups to `names`."""
    variables = _variables(expression)
    names.extend(variables)
    if expression[0] not in "?&":
        return ",".join([_VALUE] * len(variables))
    separator = "[?&]" if expression[0] == "?" else "&"
    return "".join(f"(?:{separator}{re.escape(name)}={_VALUE})?" for name in variables)
