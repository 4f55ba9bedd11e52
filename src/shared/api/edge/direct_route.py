"""Plain routes answered directly: one validation, one serialisation, straight to bytes.

FastAPI prepares for every request what a route might use: the request's query, headers and cookies,
two exit stacks for dependencies, a response for dependencies to write to. Most of what a plain
route costs is that. A `DirectRoute` looks once at what its endpoint asks for. If that is no more
than parameters of the path, the query, headers and cookies, and the request itself, it reads those
with FastAPI's own functions, calls the endpoint, and sends the answer. Anything else, and whatever
goes wrong, is left to FastAPI, with all its words.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import ResponseValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from shared.api.envelope_writer import EnvelopeWriter, UnfitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastapi.dependencies.models import Dependant
    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

__all__ = ["DirectRoute", "PlainEndpoint", "json_headers", "make_direct"]

OUTCOME = "shared.api.outcome"
"""Where the scope has what an endpoint came to, if it was called before FastAPI found its route."""

_OK = 200
_NO_BODY = frozenset({*range(100, 200), 204, 205, 304})


class DirectRoute(APIRoute):
    """FastAPI's route, answered directly where its endpoint is a plain one.

    Plain is an ``async def`` endpoint without dependencies, body, background tasks or a response to
    write to, whose answer goes through a response model to JSON. What comes out is the same either
    way, but for the time it takes. A request that FastAPI's own telemetry traces goes FastAPI's
    way, which tells the steps of it.
    """

    plain_endpoints: dict[int, PlainEndpoint | None]
    """What is known of the endpoint, for each place the route was included at."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        # Where a router is included, FastAPI keeps what the route became there in the scope.
        found = scope.get("fastapi", {}).get("effective_route_context")
        plain = self.plain(found if getattr(found, "original_route", None) is self else self)
        known = scope.pop(OUTCOME, None)
        if isinstance(known, Exception):
            raise known
        if (
            known is None
            and plain is not None
            and scope["method"] in (self.methods or ())
            and "fastapi.telemetry" not in scope
        ):
            values = plain.values(scope, scope["path_params"], receive, send)
            known = None if values is None else await plain.outcome(values)
        if plain is None or known is None:
            await super().handle(scope, receive, send)
        elif isinstance(known, Response):
            await known(scope, receive, send)
        else:
            start = {"type": "http.response.start", "status": plain.status}
            await send({**start, "headers": json_headers(known)})
            await send({"type": "http.response.body", "body": known})

    def plain(self, route: Any) -> PlainEndpoint | None:
        """Return what is known of the endpoint; ``None`` if it is no plain one.

        Args:
            route: this route, or what it became where its router was included.
        """
        known = self.__dict__.get("plain_endpoints")
        if known is None:  # not made in __init__, which a route that was made direct had before
            known = self.plain_endpoints = {}
        if id(route) not in known:
            known[id(route)] = PlainEndpoint.of(route)
        return known[id(route)]


class PlainEndpoint:
    """What a plain endpoint asks for, and how its answer is written."""

    def __init__(self, route: Any, call: Callable[..., Any]) -> None:
        dependant: Dependant = route.dependant
        self.route = route  # which keeps its id from being given to another one
        self.call = call
        self._path = [
            (field.name, field.validation_alias or field.alias, field.validate)
            for field in dependant.path_params
        ]
        self._query = dependant.query_params
        self._headers = dependant.header_params
        self._cookies = dependant.cookie_params
        self._request_name = dependant.request_param_name
        self._needs_request = bool(
            self._query or self._headers or self._cookies or self._request_name
        )
        self.status = route.status_code or _OK
        self._field = route.response_field
        self._by_alias = route.response_model_by_alias
        self._envelope = EnvelopeWriter.of(route.response_model, by_alias=self._by_alias)

    @classmethod
    def of(cls, route: Any) -> PlainEndpoint | None:
        """Return what there is to know of a plain endpoint; ``None`` if it is none.

        Args:
            route: FastAPI's route, or what it became where its router was included.
        """
        dependant: Dependant | None = route.dependant
        if dependant is None or not inspect.iscoroutinefunction(dependant.call):
            return None
        wishes = {field.name for field in fields(dependant)} - _HARMLESS
        asked = {name for name in wishes if getattr(dependant, name)}
        response_class = route.response_class
        as_it_is = (
            asked <= _READ
            and route.body_field is None
            and route.response_field is not None
            and hasattr(route.response_field, "serialize_json")
            and isinstance(response_class, DefaultPlaceholder)
            and response_class.value is JSONResponse
            and route.status_code not in _NO_BODY
            and not any(getattr(route, option, None) for option in _OPTIONS)
            and not any(_of_many(field) for field in dependant.path_params)
        )
        return cls(route, dependant.call) if as_it_is else None

    async def outcome(self, values: dict[str, Any]) -> bytes | Response:
        """Call the endpoint, and write what it returns as JSON unless it is a response already."""
        value = await self.call(**values)
        return value if isinstance(value, Response) else self._json(value)

    def values(
        self, scope: Scope, path_params: dict[str, Any], receive: Receive, send: Send
    ) -> dict[str, Any] | None:
        """Read what the endpoint asks for; ``None`` if FastAPI has to say what is wrong with it."""
        values: dict[str, Any] = {}
        for name, alias, validate in self._path:
            if alias not in path_params:
                return None
            values[name], wrong = validate(path_params[alias], values, loc=("path", alias))
            if wrong:
                return None
        if not self._needs_request:
            return values
        request = Request(scope, receive, send)
        errors: list[Any] = []
        if self._query:
            _read(self._query, request.query_params, values, errors)
        if self._headers:
            _read(self._headers, request.headers, values, errors)
        if self._cookies:
            _read(self._cookies, request.cookies, values, errors)
        if self._request_name:
            values[self._request_name] = request
        return None if errors else values

    def _json(self, value: object) -> bytes:
        """Write the answer as its response model has it: what that does not name is left out."""
        if self._envelope is not None:
            try:
                return self._envelope.write(value)
            except UnfitError:
                pass  # the long way, which finds the words for what is wrong
        fit, errors = self._field.validate(value, {}, loc=("response",))
        if errors:
            raise ResponseValidationError(errors=errors, body=value)
        written: bytes = self._field.serialize_json(fit, by_alias=self._by_alias)
        return written


def json_headers(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer in JSON, as FastAPI has them."""
    return [
        (b"content-length", str(len(body)).encode()),
        (b"content-type", b"application/json"),
    ]


def make_direct(routes: Iterable[BaseRoute]) -> None:
    """Make FastAPI's routes among ``routes``, and in routers included there, direct ones.

    A route of a class of its own stays what it is. A second call does nothing.
    """
    for route in routes:
        if type(route) is APIRoute:
            route.__class__ = DirectRoute
        included = getattr(route, "original_router", None)
        if included is not None:
            make_direct(included.routes)


def _of_many(field: Any) -> bool:
    """Whether a parameter is a model whose fields are the parameters."""
    annotation = field.field_info.annotation
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _read(wanted: Any, received: Any, values: dict[str, Any], errors: list[Any]) -> None:
    found, wrong = request_params_to_args(wanted, received)
    values.update(found)
    errors.extend(wrong)


_READ = frozenset(
    {"cookie_params", "header_params", "path_params", "query_params", "request_param_name"}
)
"""What of an endpoint's wishes is fulfilled here; any other wish, known or new, is FastAPI's."""

_HARMLESS = frozenset(
    {"call", "name", "own_oauth_scopes", "parent_oauth_scopes", "path", "scope", "use_cache"}
)
"""What a `Dependant` has that is no wish of the endpoint's."""

_OPTIONS = (
    "is_json_stream",
    "is_sse_stream",
    "max_body_size",
    "response_model_exclude",
    "response_model_exclude_defaults",
    "response_model_exclude_none",
    "response_model_exclude_unset",
    "response_model_include",
    "stream_item_field",
)
"""Options of a route that change its answer."""
