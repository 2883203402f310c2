"""Every exception that masque_client raises, in one tree.

    MasqueError
    ├── LocalProtocolError            we were used wrongly (a bug above us); never the peer's fault
    ├── RemoteProtocolError           the peer broke a rule; names the clause
    ├── ConfigurationError            what the user gave us cannot work
    │   ├── TemplateError             a URI template breaks RFC 9298 §2 / RFC 9484 §3
    │   ├── DestinationBlocked        rules and user leave no way to a destination
    │   └── PvdError                  a PvD document is unusable (RFC 8801, proxy-config)
    │       └── PvdUnavailable        429 or 5xx instead of one; worth another try
    ├── ConnectError                  the proxy could not be reached
    │   ├── NameResolutionError
    │   └── ConnectionLost            it was reached, and then it went away
    ├── TimedOut                      the proxy is there but did not do its part in time
    ├── TlsError                      certificate, name or pin did not verify
    ├── AuthenticationRefused         401 or 407
    ├── ProxyRefused                  any other refusal, and missing MASQUE support
    │   └── EmptyTunnel               accepted, but without an address; worth another try
    ├── DatagramTooLarge              a payload exceeds the path's limit
    └── HostError                     this machine said no
        ├── PrivilegeError            no CAP_NET_ADMIN, no /dev/net/tun
        └── AddressInUse              a local port is taken

Each class says whether a retry may help (`retryable`) and carries a `hint`: the sentence that tells a person what
to do next. The command line prints `error: <message>` and `hint: <hint>` and maps the class to an exit code.
Library and operating-system errors are translated once, where they enter, with the cause kept.
"""

from __future__ import annotations

from typing import ClassVar


class MasqueError(Exception):
    """Base of everything this package raises on purpose.

    Args:
        message: what happened, one sentence without a final full stop.
        hint: what the user can do next; falls back to the class's own hint.
    """

    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = "run again with -v for details"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint


class LocalProtocolError(MasqueError):
    """Our own code asked for something the protocol forbids now. Raised by `protocol` and `engine`; a bug."""

    default_hint = "this is a bug in masque-connect; please report it with the output of -v"


class RemoteProtocolError(MasqueError):
    """The peer sent something a specification forbids. Raised by `protocol`, turned into a close in one place.

    Attributes:
        clause: the violated clause, such as `RFC 9484 §4.7.3`.
        code: the HTTP/3 error code for the stream (or connection) close.
        connection_error: True when the whole connection must be closed, not just the request stream.
    """

    default_hint = "the proxy breaks the standard; report it to its operator"

    def __init__(
        self,
        message: str,
        *,
        clause: str,
        code: int = 0x10E,
        connection_error: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{message} ({clause})", hint=hint)
        self.clause = clause
        self.code = code
        self.connection_error = connection_error


class ConfigurationError(MasqueError):
    """A profile, option or document of the user's cannot be used. Nothing was attempted."""

    default_hint = "correct the value and try again"


class TemplateError(ConfigurationError):
    """A URI template breaks the restrictions of RFC 9298 §2 or RFC 9484 §3."""

    default_hint = "a template looks like https://proxy.example/.well-known/masque/udp/{target_host}/{target_port}/"


class DestinationBlocked(ConfigurationError):
    """The proxies' rules and the user's settings leave no way to a destination. Raised by `tunnel.router`."""

    default_hint = "see why with `masque-connect discover --for`; --unmatched direct goes around the proxies"


class PvdError(ConfigurationError):
    """A PvD document was not served, or must be ignored as a whole. Raised by `pvd`."""

    default_hint = "ask the operator of the host to correct its PvD document"


class PvdUnavailable(PvdError):
    """The host answered 429 or 5xx instead of its PvD document. Raised by `pvd`.

    Attributes:
        status: the HTTP status.
        retry_after_s: seconds the host asked us to wait (RFC 9110 §10.2.3), or None.
    """

    retryable = True
    default_hint = "the host is overloaded or under repair; try again later"

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=_with_wait(self.default_hint, retry_after_s))
        self.status = status
        self.retry_after_s = retry_after_s


class ConnectError(MasqueError):
    """No connection to the proxy could be established. Raised by `http`."""

    retryable = True
    default_hint = "check the network and the proxy's host and port; UDP may be blocked on the way"


class NameResolutionError(ConnectError):
    """A host name did not resolve."""

    default_hint = "check the spelling of the host name and this machine's DNS"


class ConnectionLost(ConnectError):
    """An established connection ended, or fell silent for longer than its idle timeout."""

    default_hint = "the proxy went away; try again"


class TimedOut(MasqueError):
    """The proxy answers on the network but did not finish a step in time."""

    retryable = True
    default_hint = "the proxy may be overloaded or may not support this tunnel type"


class TlsError(MasqueError):
    """The proxy's certificate is not trusted, is not for this name, has expired, or does not match the pin."""

    default_hint = "check the proxy's name and this machine's clock; give a private CA with --ca"


class AuthenticationRefused(MasqueError):
    """The proxy answered 401 or 407 (RFC 9110 §15.5.2, §15.5.8).

    Attributes:
        status: which of them.
        schemes: how one may authenticate, as the proxy says, in lower case and in its order; perhaps none.
    """

    default_hint = (
        "give credentials: --user and --password-file, --token-file or --token-command, --header-file, "
        "or --cert and --key"
    )

    def __init__(self, message: str, *, status: int, schemes: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.schemes = schemes


class ProxyRefused(MasqueError):
    """The proxy refused the tunnel, or does not offer what MASQUE needs.

    Attributes:
        status: the HTTP status, or None when no response was involved (no extended CONNECT, no datagrams).
        proxy_status: the Proxy-Status field (RFC 9209) with control characters removed, or None.
        retry_after_s: seconds the proxy asked us to wait (RFC 9110 §10.2.3), or None.
    """

    default_hint = "check the proxy's URL and ask its operator whether this tunnel type is offered to you"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        proxy_status: str | None = None,
        retry_after_s: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=_with_wait(hint or self.default_hint, retry_after_s))
        self.status = status
        self.proxy_status = proxy_status
        self.retry_after_s = retry_after_s


class EmptyTunnel(ProxyRefused):
    """The proxy accepted a tunnel for IP packets and gave it no address, or closed it at once. Raised by `tunnel`."""

    retryable = True


class DatagramTooLarge(MasqueError):
    """A payload does not fit the path. `limit` is the largest payload, in bytes, that would have fitted."""

    default_hint = "send smaller packets: lower the MTU of the program or the link that sends them"

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class HostError(MasqueError):
    """The operating system refused a change. What had been changed was undone."""

    default_hint = "run again with -v to see the refused change"


class PrivilegeError(HostError):
    """A privilege or a device is missing: CAP_NET_ADMIN, /dev/net/tun."""

    default_hint = "run as root, or grant CAP_NET_ADMIN; `udp` and `discover` work without"


class AddressInUse(HostError):
    """A local address or port is taken, or is not ours."""

    default_hint = "choose another local port, or stop the program that uses it (ss -lunp)"


_ABOUT_THE_PROXY = frozenset({400, 404, 405, 410, 421, 501})
"""Statuses that say that the URL leads to no such resource, whatever the destination in it."""


def concerns_whole_proxy(error: MasqueError) -> bool:
    """Whether further requests to this proxy would end likewise, so that asking for other destinations is idle.

    True for refused credentials, redirects, a URL that leads to no MASQUE resource, and a proxy that breaks the
    standard. Other refusals (403, 5xx) may be about one destination, and may pass.
    """
    match error:
        case AuthenticationRefused() | RemoteProtocolError():
            return True
        case ProxyRefused(status=int() as status):
            return status < 400 or status in _ABOUT_THE_PROXY
        case _:
            return False


def _with_wait(hint: str, retry_after_s: float | None) -> str:
    return hint if retry_after_s is None else f"{hint}; it asks to wait {retry_after_s:.0f} s"
