"""Which plain route answers a path, found without FastAPI's middlewares and search for it.

Between the edge and a plain route FastAPI has a shell that only errors have need of, and a search
that asks one route after another, the four of its documents first. A `RouteTable` has looked at all
routes once. It names a plain route (see `direct_route`) where FastAPI would come to that route and
no other, and nothing else on the way would have a say; of anything else it knows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.convertors import (
    FloatConvertor,
    IntegerConvertor,
    StringConvertor,
    UUIDConvertor,
)
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Mount, Route, WebSocketRoute

from shared.api.edge.direct_route import DirectRoute

if TYPE_CHECKING:
    from collections.abc import Callable
    from re import Pattern

    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Scope

    from shared.api.edge.direct_route import PlainEndpoint

__all__ = ["Place", "RouteTable"]

_SEARCHED = frozenset({Route.matches, APIRoute.matches, Mount.matches})
"""How a route says whether a path is its own: by one pattern. What another says is not known."""

_WITHIN_A_SEGMENT = frozenset({FloatConvertor, IntegerConvertor, StringConvertor, UUIDConvertor})


@dataclass(frozen=True, slots=True)
class Place:
    """A route at the place it was included at."""

    template: str
    pattern: Pattern[str]
    methods: frozenset[str] | None
    slashes: int | None
    """How many there are in a path that matches; ``None`` if that depends."""

    converted: tuple[tuple[str, Callable[[str], Any]], ...]
    endpoint: PlainEndpoint | None
    """``None`` if the route is not a plain one, and FastAPI's alone."""

    route: BaseRoute
    context: Any
    """What FastAPI made of the route where its router is included; ``None`` elsewhere."""

    def enter(self, scope: Scope, path_params: dict[str, Any]) -> None:
        """Note in the scope, as FastAPI does, which route was found."""
        scope["path_params"] = path_params
        scope["route"] = self.route
        scope["endpoint"] = self.endpoint.call if self.endpoint else None
        if self.context is not None:
            scope["fastapi"] = {"effective_route_context": self.context}

    @staticmethod
    def leave(scope: Scope) -> None:
        """Take that back: FastAPI is to find the route itself."""
        for name in ("path_params", "route", "endpoint", "fastapi", "router"):
            scope.pop(name, None)


class RouteTable:
    """The plain routes of an application inside the edge.

    It follows routes that are added, removed or replaced while the application runs.

    Args:
        app: what the edge calls.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._router = _router_inside(app)
        self._seen: list[tuple[APIRouter, list[BaseRoute]]] = []
        self._places: list[Place] = []
        self._fixed: dict[tuple[str, str], Place] = {}
        self._by_shape: dict[tuple[str, int], list[Place]] = {}
        if self._router is not None:
            self._look(self._router)

    def find(self, scope: Scope) -> tuple[Place, PlainEndpoint, dict[str, Any]] | None:
        """Return the plain route that answers a request, its endpoint and its path's parameters.

        ``None`` if it is FastAPI's to find: no plain route, a method the route does not have, a
        redirect to a path with a slash more or less, an application that is mounted in another one,
        a request that FastAPI's own telemetry traces.
        """
        router = self._router
        if (
            router is None
            or scope.get("root_path")
            or "router" in scope
            or "path_params" in scope
            or "fastapi.telemetry" in scope
        ):
            return None
        for known, routes in self._seen:
            if known.routes != routes:
                self._look(router)
                break
        method, path = scope["method"], scope["path"]
        place = self._fixed.get((method, path))
        if place is not None and place.endpoint is not None:
            scope["router"] = router
            return place, place.endpoint, {}
        for place in self._by_shape.get((method, path.count("/")), ()):
            match = place.pattern.match(path)
            if match is not None:
                if place.endpoint is None:
                    return None
                scope["router"] = router
                params: dict[str, Any] = match.groupdict()
                for name, convert in place.converted:
                    params[name] = convert(params[name])
                return place, place.endpoint, params
        return None

    def _look(self, router: APIRouter) -> None:
        """Take down all routes, in the order in which FastAPI asks them."""
        self._seen = [(each, list(each.routes)) for each in _routers(router)]
        self._places = _places(router) if all(type(r) is APIRouter for r, _ in self._seen) else []
        self._fixed, self._by_shape = {}, {}
        plain = [place for place in self._places if place.endpoint is not None]
        for place in plain:
            for method in place.methods or ():
                if place.slashes is not None:
                    self._lay_out(method, place.slashes)

    def _lay_out(self, method: str, slashes: int) -> None:
        """Keep the places that a path of this shape could lead to, and the paths that are fixed."""
        if (method, slashes) in self._by_shape:
            return
        self._by_shape[method, slashes] = candidates = [
            place
            for place in self._places
            if place.slashes in {None, slashes}
            and (place.methods is None or method in place.methods)
        ]
        for place in candidates:
            if place.endpoint is None or place.pattern.groups:
                continue
            first = next(each for each in candidates if each.pattern.match(place.template))
            if first is place:
                self._fixed[method, place.template] = place


def _router_inside(app: Any) -> APIRouter | None:
    """Return FastAPI's router, if there is nothing but FastAPI's own between the edge and it."""
    if type(app) is not ExceptionMiddleware or type(app.app) is not AsyncExitStackMiddleware:
        return None
    router = app.app.app
    if type(router) is not APIRouter or router.middleware_stack != router.app:
        return None
    return router


def _routers(router: APIRouter) -> list[APIRouter]:
    """Return a router and all that are included in it."""
    found = [router]
    for each in found:
        included = (getattr(route, "original_router", None) for route in each.routes)
        found += [inner for inner in included if inner is not None and inner not in found]
    return found


def _places(router: APIRouter) -> list[Place]:
    """Return the places of all routes, up to the first of which it is not known what it takes."""
    places: list[Place] = []
    for found in iter_route_contexts(router.routes):
        original = found.original_route
        context = found._route_context  # noqa: SLF001 - what the scope holds beside the route
        effective: Any = original
        if context is not None:
            effective = context.starlette_route or context
        asked = original if isinstance(original, APIRoute) else effective
        if isinstance(asked, WebSocketRoute):
            continue  # never takes an HTTP request
        if type(asked).matches not in _SEARCHED:
            break
        plain = original.plain(effective) if type(original) is DirectRoute else None
        places.append(_place(effective, original, context, plain))
    return places


def _place(effective: Any, original: BaseRoute, context: Any, plain: PlainEndpoint | None) -> Place:
    convertors = effective.param_convertors
    whole = isinstance(effective, Mount) or any(
        type(convertor) not in _WITHIN_A_SEGMENT for convertor in convertors.values()
    )
    methods = getattr(effective, "methods", None)
    return Place(
        template=effective.path_format,
        pattern=effective.path_regex,
        methods=frozenset(methods) if methods else None,
        slashes=None if whole else effective.path.count("/"),
        converted=tuple(
            (name, convertor.convert)
            for name, convertor in convertors.items()
            if type(convertor) is not StringConvertor
        ),
        endpoint=plain,
        route=original,
        context=context,
    )
