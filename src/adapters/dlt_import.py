"""Import the dlt that loads data, where Databricks has another module of that name.

Delta Live Tables is `dlt` there: served by an import hook, and lying on `sys.path` as well. Hooks
are known by their mark, not by their place; they are set aside for the import and put back after.
Which dlt came is proven, not hoped. Source: dlt documentation, "Databricks, Delta Live Tables".
"""

from __future__ import annotations

import importlib
import sys
import threading
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from types import ModuleType

#: Names by which Databricks marks its import hooks, and the folders of its own packages.
HOOK_MARKS = ("PostImportHook", "DeltaLiveTables", "dlt_hook", "DLTHook")
STUB_MODULES = "/databricks/spark/python/dlt"
STUB_FOLDERS = ("/databricks/spark/python", "/databricks/python_shell")


_importing = threading.Lock()


def import_dlt() -> ModuleType:
    """The dlt of the package index; raises `SettingsError` if it cannot be had. Safe in threads."""
    with _importing:
        loaded = dict(sys.modules)
        present = loaded.get("dlt")
        if getattr(getattr(present, "__spec__", None), "_initializing", False):
            # Another thread imports it by itself: wait, as nothing may be purged under its hands.
            present = importlib.import_module("dlt")
        if present is not None and is_data_load_tool(present):
            return present
        return _import_anew(loaded)


def _import_anew(loaded: dict[str, ModuleType]) -> ModuleType:
    """Instead of whatever is `loaded`.

    Other threads may be importing: hooks and search path are lists of our own for the while, as one
    that is reordered under a search makes it miss what it looks for.
    """
    hooks, path = sys.meta_path, sys.path
    _purge(loaded)
    allowed = [hook for hook in hooks if not is_marked(hook)]
    try:
        sys.meta_path, sys.path = list(allowed), _ours_first(path)
        importlib.invalidate_caches()
        module = importlib.import_module("dlt")
    except ImportError:
        raise SettingsError(
            "dlt cannot be imported", "install the wheel with its dependencies in this environment"
        ) from None
    finally:
        hooks.extend(hook for hook in sys.meta_path if hook not in allowed)
        sys.meta_path, sys.path = hooks, path
    if not is_data_load_tool(module):
        raise SettingsError(
            f"the dlt at {where(module)} is Databricks' Delta Live Tables, not the data load tool",
            "install the wheel with its dependencies in this environment",
        )
    return module


def is_data_load_tool(module: Any) -> bool:
    """The proof: Delta Live Tables has no pipelines to run."""
    return hasattr(module, "pipeline") and hasattr(module, "secrets")


def is_marked(hook: Any) -> bool:
    """Whether an import hook is one of Databricks', by what it and its class say of themselves."""
    kind = hook if isinstance(hook, type) else type(hook)
    told = f"{kind.__module__}.{kind.__qualname__} {hook!r}"
    return any(mark.lower() in told.lower() for mark in HOOK_MARKS)


def where(module: Any) -> str:
    """The file of a module, for people."""
    return str(getattr(module, "__file__", None) or "an import hook")


def _purge(loaded: dict[str, ModuleType]) -> None:
    """Forget every module of that name, and what a stub has loaded under others."""
    for name, module in loaded.items():
        file = getattr(module, "__file__", None) or ""
        wrong = name.partition(".")[0] == "dlt" or file.startswith(STUB_MODULES)
        if wrong and sys.modules.get(name) is module:
            del sys.modules[name]


def _ours_first(path: list[str]) -> list[str]:
    """The search path with the folder of the installed distribution first, Databricks' own last."""
    try:
        home = [str(Path(str(distribution("dlt").locate_file(""))))]
    except PackageNotFoundError:
        home = []
    others = [folder for folder in path if folder not in home]
    stubs = [folder for folder in others if folder.startswith(STUB_FOLDERS)]
    return home + [folder for folder in others if folder not in stubs] + stubs
