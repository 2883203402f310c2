"""The entry point: parse, run one command, turn its outcome into words and an exit code.

Results go to stdout, remarks to stderr. An error ends in two lines, `error: <cause>` and `hint: <what to do>`;
a traceback appears only with -v. Heavy imports wait until the arguments are known to be good.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from masque_connect.exit_codes import ExitCode, exit_code_for
from masque_connect.interruption import Interrupted


def entry_point() -> NoReturn:
    """The console script."""
    # Until a command installs its own handling, a signal just ends us: nothing has been changed yet.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        report("interrupted", "what the command had set up was undone")
        code = ExitCode.INTERRUPTED
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run the command line `arguments` (without the program's name); returns the exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        print("\nTry it without an account or a configuration:  masque-connect demo")  # noqa: T201
        return ExitCode.USAGE
    logging.basicConfig(
        level=logging.DEBUG if options.verbose > 1 else logging.INFO if options.verbose else logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    return _run(options)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each command's file adds its own part."""
    from masque_connect.commands import demo, discover, profile, socks, udp, up

    parser = _Parser(
        prog="masque-connect",
        description="Tunnels for the open MASQUE standards: CONNECT-IP, CONNECT-UDP, PvD discovery.",
    )
    parser.add_argument("--version", action=_Version)
    parser.set_defaults(command=None, verbose=0)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (demo, discover, profile, udp, socks, up):
        command.add_parser(commands)
    return parser


def _run(options: argparse.Namespace) -> int:
    from masque_client.errors import MasqueError, RemoteProtocolError

    try:
        return int(options.command(options))
    except MasqueError as error:
        if options.verbose:
            logging.getLogger(__name__).exception("the command failed")
        blame = "the proxy broke the protocol: " if isinstance(error, RemoteProtocolError) else ""
        report(f"{blame}{error}", error.hint)
        return exit_code_for(error)
    except BrokenPipeError:
        return ExitCode.OK  # the reader of our output has what it wanted
    except Exception as error:
        if options.verbose:
            logging.getLogger(__name__).exception("unexpected failure")
        report(f"unexpected failure: {type(error).__name__}: {error}", "this is a bug; run again with -v and report it")
        return ExitCode.GENERIC


def report(error: str, hint: str) -> None:
    """The two lines that end every failed command."""
    print(f"error: {error}\nhint: {hint}", file=sys.stderr, flush=True)  # noqa: T201


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


class _Parser(argparse.ArgumentParser):
    """Wrong usage ends like every other error; the commands' parsers are of this class, too."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        report(message, f"see {self.prog} --help")
        raise SystemExit(ExitCode.USAGE)


class _Version(argparse.Action):
    """`--version`: ours, the engines that this installation can use, and which offload kernel."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show versions and available engines")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        from masque_client.engine import available_engines
        from masque_client.netio import offload

        engines = ", ".join(f"{name} {version(name)}" for name in available_engines())
        kernel = offload.ACTIVE if offload.IS_WORTHWHILE else f"off, {offload.ACTIVE}"
        print(f"masque-connect {version('masque-connect')} (engines: {engines}; offload: {kernel})")  # noqa: T201
        parser.exit()


if __name__ == "__main__":
    entry_point()
