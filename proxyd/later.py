"""Modules that others import and nobody here uses, loaded when somebody does after all: `put_off`.

trio imports `ssl` and `hmac`, and cryptography `hashlib`. They bring the system's OpenSSL, beside
the one in cryptography's wheel: 5 MiB resident, for nothing. Python's own LazyLoader does not
serve: its module is loaded by the second import that finds it.
"""

import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

# Whose names nobody asks for while those who import them are loaded.
PUT_OFF: Final = frozenset({"hashlib", "hmac", "idna", "ssl"})

_lock: Final = threading.RLock()


class _Later(ModuleType):
    """One whose code runs when it is first asked for a name, by whichever thread."""

    def __getattr__(self, name: str) -> Any:
        with _lock:
            if type(self) is _Later:
                _load(self)
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _Loading(_Later):
    """The same while it runs: other threads wait, and it is not begun again."""


def _load(module: ModuleType) -> None:
    spec = module.__spec__
    assert spec is not None
    assert isinstance(spec.loader, _PutOff)
    module.__class__ = _Loading
    try:
        spec.loader.real.exec_module(module)
    except BaseException:
        module.__class__ = _Later
        raise
    module.__class__ = ModuleType


class _PutOff(Loader):
    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Later


class _Finder:
    """Finds these modules where they are found by everybody, and puts off what they do."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in PUT_OFF else None
        if spec is not None and spec.loader is not None:
            spec.loader = _PutOff(spec.loader)
        return spec


def put_off() -> None:
    """From here on; to be called before anything imports trio."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
