"""Providers: the app-wide objects of a service, made from one another by type.

A provider is an async generator function. Its return annotation names what it provides, its
parameters name what it needs. It is entered once when the service starts, after what it needs,
and left in reverse order when the service stops.
"""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from shared.service.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Provider:
    """How the object of one type comes to be: its async generator and the types it needs."""

    provides: type[Any]
    needs: Mapping[str, type[Any]]
    factory: Callable[..., AsyncIterator[Any]]

    @classmethod
    def of(cls, factory: Callable[..., AsyncIterator[Any]]) -> Provider:
        """Read a provider from its function.

        Raises:
            DeclarationError: not an async generator function, or an annotation is missing.
        """
        name = getattr(factory, "__qualname__", repr(factory))
        if not inspect.isasyncgenfunction(factory):
            raise DeclarationError(
                f"provider {name} must be an async generator with one yield: "
                f"async def {name}(...) -> AsyncIterator[TheType]"
            )
        hints = get_type_hints(factory)
        answer = hints.pop("return", None)
        if get_origin(answer) is None or not get_args(answer):
            raise DeclarationError(
                f"provider {name} must say what it provides: -> AsyncIterator[TheType]"
            )
        bare = [p for p in inspect.signature(factory).parameters if p not in hints]
        if bare:
            raise DeclarationError(f"provider {name}: annotate the parameter {', '.join(bare)}")
        return cls(provides=get_args(answer)[0], needs=hints, factory=factory)


class Provisions:
    """The objects of one running service, by type."""

    def __init__(self) -> None:
        self._objects: dict[type[Any], Any] = {}

    def add(self, kind: type[T], instance: T) -> None:
        """Hold ``instance`` as the object of type ``kind``; a second of that type replaces it."""
        self._objects[kind] = instance

    def __contains__(self, kind: object) -> bool:
        return kind in self._objects

    def get(self, kind: type[T]) -> T:
        """Return the object of type ``kind``.

        Raises:
            LookupError: nothing provides it in this service.
        """
        try:
            instance: T = self._objects[kind]
        except KeyError:
            raise LookupError(
                f"nothing provides {kind.__name__} in this service; declare "
                f"@service.provides async def ...() -> AsyncIterator[{kind.__name__}]"
            ) from None
        return instance

    async def enter(self, providers: Iterable[Provider], stack: AsyncExitStack) -> None:
        """Enter every provider on ``stack``, each after what it needs.

        Raises:
            DeclarationError: two providers of a type, a need nobody provides, or a cycle.
        """
        for provider in self._in_order(providers):
            needs = {name: self.get(kind) for name, kind in provider.needs.items()}
            instance = await stack.enter_async_context(
                asynccontextmanager(provider.factory)(**needs)
            )
            self.add(provider.provides, instance)

    def _in_order(self, providers: Iterable[Provider]) -> list[Provider]:
        by_type: dict[type[Any], Provider] = {}
        for provider in providers:
            if provider.provides in by_type or provider.provides in self:
                raise DeclarationError(
                    f"two providers for {provider.provides.__name__}; a type has one object"
                )
            by_type[provider.provides] = provider
        for provider in by_type.values():
            for kind in provider.needs.values():
                if kind not in by_type and kind not in self:
                    raise DeclarationError(
                        f"the provider of {provider.provides.__name__} needs {kind.__name__}, "
                        "which nothing provides"
                    )
        graph = {
            kind: {need for need in provider.needs.values() if need in by_type}
            for kind, provider in by_type.items()
        }
        try:
            return [by_type[kind] for kind in TopologicalSorter(graph).static_order()]
        except CycleError as error:
            names = " -> ".join(kind.__name__ for kind in error.args[1])
            raise DeclarationError(f"providers need one another in a circle: {names}") from error
