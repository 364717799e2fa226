"""The guarded import, against simulations of what Databricks puts in its way, each in a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

STUB = "def table(*a, **k): ...\ndef view(*a, **k): ...\n"

HOOK = """
import sys, importlib.abc, importlib.machinery, types

class PostImportHook:
    class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name, path=None, target=None):
            if name == "dlt":
                return importlib.machinery.ModuleSpec(name, self)
        def create_module(self, spec):
            module = types.ModuleType("dlt"); module.table = lambda *a: None
            return module
        def exec_module(self, module):
            served.append(module.__name__)

class Innocent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None

served = []
hook = PostImportHook.Finder()
"""

PROOF = """
from entrypoints.dlt_import import import_dlt
module = import_dlt()
import dlt
assert dlt is module and hasattr(dlt, "pipeline"), dlt
assert "site-packages" in dlt.__file__, dlt.__file__
from dlt.destinations import duckdb
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


WAYS = {
    "nothing in the way": PROOF,
    "hook first": HOOK + "sys.meta_path.insert(0, hook)" + PROOF + "assert hook in sys.meta_path",
    "hook not first": HOOK
    + "sys.meta_path[:] = [Innocent, hook, *sys.meta_path]; before = list(sys.meta_path)"
    + PROOF
    + "assert sys.meta_path[:2] == before[:2], sys.meta_path",
    "hook marked by what it says of itself": HOOK
    + "class Named(PostImportHook.Finder):\n"
    + "    def __repr__(self): return '<dbruntime.PostImportHook>'\n"
    + "Named.__qualname__ = 'Finder'; hook = Named(); sys.meta_path.insert(0, hook)"
    + PROOF
    + "assert hook in sys.meta_path",
    "hook served its module already": HOOK
    + "sys.meta_path.insert(0, hook); import dlt; assert served == ['dlt']; first = dlt"
    + PROOF
    + "assert dlt is not first and served == ['dlt']",
    "stub first on the path": "import sys; sys.path.insert(0, {stubs!r})\n"
    + PROOF
    + "assert sys.path[0] == {stubs!r}",
    "stub imported already": "import sys; sys.path.insert(0, {stubs!r}); import dlt; first = dlt\n"
    + PROOF
    + "assert dlt is not first",
    "hook and stub together": HOOK
    + "sys.path.insert(0, {stubs!r}); sys.meta_path.insert(0, hook); import dlt"
    + PROOF
    + "assert hook in sys.meta_path and sys.path[0] == {stubs!r}",
    "the right one is there already": "import dlt; first = dlt" + PROOF + "assert dlt is first",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_right_dlt_comes(way, tmp_path):
    # Not in the working folder, which is on the search path by itself.
    stubs = tmp_path / "stubs"
    (stubs / "dlt").mkdir(parents=True)
    (stubs / "dlt" / "__init__.py").write_text(STUB)
    done = _run(WAYS[way].replace("{stubs!r}", repr(str(stubs))))
    assert done.returncode == 0, done.stderr


def test_the_wrong_one_alone_is_refused(tmp_path):
    (tmp_path / "dlt.py").write_text(STUB)
    code = f"""
import importlib.metadata as metadata, sys
def missing(name): raise metadata.PackageNotFoundError(name)
from entrypoints import dlt_import
dlt_import.distribution = missing
sys.path.insert(0, {str(tmp_path)!r})
try:
    dlt_import.import_dlt()
except dlt_import.SettingsError as error:
    print(error)
"""
    assert "Delta Live Tables" in _run(code).stdout
