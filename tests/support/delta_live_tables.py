"""What Databricks puts in the way of `import dlt`, as code to run before it, one piece a way.

Delta Live Tables is a module of that name behind an import hook, and lies on `sys.path` as well.
`{stubs!r}` stands for the folder of the stub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

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

#: Each leaves `hook`, `first` (the wrong module) or `before` (the hooks) for a proof to look at.
WAYS = {
    "hook first": HOOK + "sys.meta_path.insert(0, hook)\n",
    "hook not first": HOOK
    + "sys.meta_path[:] = [Innocent, hook, *sys.meta_path]; before = list(sys.meta_path)\n",
    "hook marked by what it says of itself": HOOK
    + "class Named(PostImportHook.Finder):\n"
    + "    def __repr__(self): return '<dbruntime.PostImportHook>'\n"
    + "Named.__qualname__ = 'Finder'; hook = Named(); sys.meta_path.insert(0, hook)\n",
    "hook served its module already": HOOK
    + "sys.meta_path.insert(0, hook); import dlt; assert served == ['dlt']; first = dlt\n",
    "stub first on the path": "import sys; sys.path.insert(0, {stubs!r})\n",
    "stub imported already": "import sys; sys.path.insert(0, {stubs!r}); import dlt; first = dlt\n",
    "hook and stub together": HOOK
    + "sys.path.insert(0, {stubs!r}); sys.meta_path.insert(0, hook); import dlt\n",
}


def in_the_way(way: str, folder: Path) -> str:
    """The code of a way, whose stub is written into the folder."""
    stubs = folder / "stubs"
    (stubs / "dlt").mkdir(parents=True, exist_ok=True)
    (stubs / "dlt" / "__init__.py").write_text(STUB)
    return WAYS[way].replace("{stubs!r}", repr(str(stubs)))
