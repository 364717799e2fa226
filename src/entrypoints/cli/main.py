"""The command `pgbronze`: parse the arguments, then run the command behind the error boundary.

The parts are in `arguments`, `commands` and `boundary`. Nothing heavy is imported here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from entrypoints.cli.arguments import PROGRAM, build_parser
from entrypoints.cli.boundary import guarded

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None, lines: list[str] | None = None) -> int:
    """Run one command and return its exit code. An error's line is appended to `lines`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(arguments), lines)


def _run(arguments: list[str]) -> int:
    parser = build_parser()
    options: dict[str, str] = {}
    if any("=" in argument for argument in arguments):
        # Settings as options. The import of their model takes time.
        from entrypoints.cli import parameters

        given, arguments = parameters.split(arguments, PROGRAM)
        parameters.set_log_level(given)
        options = parameters.given(given)
    chosen = parser.parse_args(arguments)
    chosen.options = options
    if chosen.command is None:
        parser.print_help()
        return 0
    if chosen.command == "cdc" and chosen.follow:
        from entrypoints.runtime.stopping import stop_requests

        with stop_requests() as chosen.stop:
            return _run_command(chosen)
    return _run_command(chosen)


def _run_command(chosen: argparse.Namespace) -> int:
    from entrypoints.runtime.memory import collect_rarely

    collect_rarely()
    from entrypoints.cli import commands
    from entrypoints.output import log
    from entrypoints.runtime import error_boundary
    from entrypoints.settings.environment import log_level

    log.configure(log_level())
    error_boundary.silence_hooks()
    return commands.run(chosen)


if __name__ == "__main__":
    sys.exit(main())
