"""The argument parser: report a wrong command line in one line."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches
from typing import Any, NoReturn

from cdc_core.values.errors import SettingsError


class _StoreOnce(argparse.Action):
    """Store a value and refuse a second, different one. Empty values do not count."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's interface
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        before = getattr(namespace, self.dest)
        if before in (self.default, ""):
            setattr(namespace, self.dest, values)
        elif values not in (before, ""):
            raise argparse.ArgumentError(self, "given twice with different values")


class Parser(argparse.ArgumentParser):
    """Report a wrong command line in one line, without the usage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # The action of `add_argument` where none is named.
        self.register("action", None, _StoreOnce)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Like argparse's, but show an unrecognized argument without its value, which may be a
        secret.
        """
        chosen, unknown = self.parse_known_args(args, namespace)
        if unknown:
            names = [text.partition("=")[0] for text in unknown if text.startswith("-")]
            words = [text for text in unknown if re.fullmatch(r"[\w.*-]{1,40}", text)]
            shown = " ".join(names or words)
            self.error(f"unrecognized arguments: {shown}" if shown else "unrecognized arguments")
        return chosen

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message, "" if message.endswith("?") else f"see: {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices if choice]
            name = "/".join(action.option_strings) or action.dest
            near = get_close_matches(str(value), choices, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(choices)}"
            raise argparse.ArgumentError(None, f"unknown {name} {str(value)[:60]!r}; {hint}")
