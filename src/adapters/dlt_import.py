"""Import dlt, the data load tool, on Databricks too, where another module has that name.

On Databricks, `dlt` is Delta Live Tables: an import hook provides it, and it is on `sys.path` too.
Hooks are recognized by their names. They are removed for the import and restored afterwards, and
the imported module is then checked. Source: dlt documentation, "Databricks, Delta Live Tables".
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
    """Import the data load tool. Raises `SettingsError` if that fails. Thread-safe."""
    with _importing:
        loaded = dict(sys.modules)
        present = loaded.get("dlt")
        if getattr(getattr(present, "__spec__", None), "_initializing", False):
            # Another thread is importing it: wait, and purge nothing meanwhile.
            present = importlib.import_module("dlt")
        if present is not None and is_data_load_tool(present):
            return present
        return _import_again(loaded)


def _import_again(loaded: dict[str, ModuleType]) -> ModuleType:
    """Import dlt in place of the modules in `loaded`.

    Other threads can be importing at the same time. So hooks and search path are replaced by new
    lists: to reorder a list during a search would make that search miss its module.
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
    """Whether the module is the data load tool: Delta Live Tables lacks these functions."""
    return hasattr(module, "pipeline") and hasattr(module, "secrets")


def is_marked(hook: Any) -> bool:
    """Whether an import hook belongs to Databricks, judged by its class and its `repr`."""
    kind = hook if isinstance(hook, type) else type(hook)
    names = f"{kind.__module__}.{kind.__qualname__} {hook!r}"
    return any(mark.lower() in names.lower() for mark in HOOK_MARKS)


def where(module: Any) -> str:
    """Return the file of a module, for messages."""
    return str(getattr(module, "__file__", None) or "an import hook")


def _purge(loaded: dict[str, ModuleType]) -> None:
    """Remove every module of that name from `sys.modules`, and the stub's other modules."""
    for name, module in loaded.items():
        file = getattr(module, "__file__", None) or ""
        wrong = name.partition(".")[0] == "dlt" or file.startswith(STUB_MODULES)
        if wrong and sys.modules.get(name) is module:
            del sys.modules[name]


def _ours_first(path: list[str]) -> list[str]:
    """Return the search path with the folder of the installed dlt first and Databricks' folders
    last."""
    try:
        home = [str(Path(str(distribution("dlt").locate_file(""))))]
    except PackageNotFoundError:
        home = []
    others = [folder for folder in path if folder not in home]
    stubs = [folder for folder in others if folder.startswith(STUB_FOLDERS)]
    return home + [folder for folder in others if folder not in stubs] + stubs
