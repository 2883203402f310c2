"""Exit codes: a contract with scripts. The table in the README is this one."""

from __future__ import annotations

from enum import IntEnum

from masque_client import errors


class ExitCode(IntEnum):
    """What the process's exit status means. Numbers never change within a major version."""

    OK = 0
    GENERIC = 1
    USAGE = 2
    NOT_CONNECTED = 3
    TIMEOUT = 4
    AUTHENTICATION = 5
    TLS = 6
    UNREACHABLE = 7
    REFUSED = 8
    PERMISSION = 9
    NO_AGENT = 10
    BAD_CONFIGURATION = 65
    INTERRUPTED = 130


_BY_ERROR: tuple[tuple[type[errors.MasqueError], ExitCode], ...] = (
    (errors.ConfigurationError, ExitCode.BAD_CONFIGURATION),
    (errors.TimedOut, ExitCode.TIMEOUT),
    (errors.AuthenticationRefused, ExitCode.AUTHENTICATION),
    (errors.TlsError, ExitCode.TLS),
    (errors.ConnectError, ExitCode.UNREACHABLE),
    (errors.ProxyRefused, ExitCode.REFUSED),
    (errors.RemoteProtocolError, ExitCode.REFUSED),
    (errors.PrivilegeError, ExitCode.PERMISSION),
)


def exit_code_for(error: errors.MasqueError) -> ExitCode:
    """The exit code of an error: the first class of the table that it belongs to."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.GENERIC)
