"""What subscribers of the first design are handed besides their messages."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar, overload

DepKeys: TypeAlias = str

T = TypeVar("T")


class ServiceDependencies:
    """Objects by name, or by type; a later registration replaces an earlier one."""

    def __init__(self) -> None:
        self._instances: dict[str | type[Any], Any] = {}

    @overload
    def register(self, key: DepKeys, instance: object) -> None: ...
    @overload
    def register(self, key: type[T], instance: T) -> None: ...
    def register(self, key: DepKeys | type[Any], instance: object) -> None:
        """Keep `instance` under `key`: any string, or the type it is asked for by."""
        self._instances[key] = instance

    @overload
    def get(self, key: DepKeys) -> Any: ...
    @overload
    def get(self, key: type[T]) -> T: ...
    def get(self, key: DepKeys | type[Any]) -> Any:
        """Return what was registered under `key`.

        Raises:
            KeyError: Nothing was; the message names what there is.
        """
        if key not in self._instances:
            known = ", ".join(sorted(map(_name, self._instances))) or "nothing"
            raise KeyError(f"no dependency {_name(key)!r}; registered: {known}")
        return self._instances[key]

    def has(self, key: DepKeys | type[Any]) -> bool:
        """Tell whether something is registered under `key`."""
        return key in self._instances

    def clear(self) -> None:
        """Forget everything."""
        self._instances.clear()

    def register_many(self, **kwargs: object) -> None:
        """Register each keyword's value under its name."""
        self._instances.update(kwargs)


def _name(key: DepKeys | type[Any]) -> str:
    return key if isinstance(key, str) else key.__name__
