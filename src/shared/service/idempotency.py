"""Routes that may be asked twice: the header ``Idempotency-Key``.

    router = APIRouter(prefix="/orders", route_class=IdempotentRoute)

    @router.post("", status_code=201, dependencies=[IdempotencyKeyRequired])
    async def place(order: NewOrder, uow: UnitOfWorkDep) -> Order: ...

That is all: on every unsafe method of the router a key that is sent is honoured. The service's
database needs the table, which `shared.delivery.create_idempotency_table` creates in a revision
(a service without migrations of its own has it).

The answer is kept in the unit of work of the route, so it commits together with the rows and
messages that the route wrote, or not at all; what the route writes elsewhere is not covered. From
this follows what the header's draft [1] leaves to us:

- The same request under the same key gets the same answer: status, body and headers, but for
  ``Set-Cookie``, and with ``Idempotency-Replayed: true``. The same means the method, path, query
  and body, byte for byte; anything else under the key is answered with 422.
- A key belongs to the tenant and the user of the context. It is looked at after all dependencies of
  the route, so that a caller without access learns nothing from a key.
- While the first request runs, others under its key are answered with 409 and ``Retry-After``.
- An error that is raised, a timeout and a crash undo everything, and with it the key: the same
  request may be sent again, and is worked on again. This holds for a 4xx too. If its reason still
  stands it comes out the same; if it is gone (the account was topped up), so is the error.
- An error that is returned instead of raised commits, like any other answer, and is remembered.
- An answer is remembered for ``delivery.idempotency_retention_hours`` and then forgotten: from then
  on the key is new.

Without a key nothing changes. With one, the request body is read into memory before the route runs
(``api.body_limit_bytes`` bounds it), and a connection is held from the moment the key is looked at.
The answer has to be whole when the route returns: a stream cannot be kept before it was sent, so it
is refused. Background tasks run after the first answer and never after a repeated one; what must
happen belongs into the outbox.

[1] draft-ietf-httpapi-idempotency-key-header-07, section 2.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any

from fastapi import Depends, params
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from shared.api import error_responses
from shared.api.error_answers import answer_error
from shared.context import current
from shared.delivery import (
    Answer,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    IdempotencyKeys,
    KeyedRequest,
)
from shared.errors import DomainError
from shared.service.dependencies import UnitOfWorkDep
from shared.service.errors import DeclarationError

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"

_CLAIM = "shared.service.idempotency"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, section 9.2.1
_NOT_KEPT = frozenset({b"content-length", b"set-cookie"})

# The draft wants a String (RFC 9651, section 3.3.3). Many clients send the bare value, as they do
# to older APIs; both spell the same key. A comma would join two headers into one.
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,510})"')
_BARE = re.compile(r"[!#-+\--:<-\[\]-~]+")
_ESCAPED = re.compile(r"\\(.)")
_MAX_LENGTH = 255
_PATTERN = rf'^("([ !#-\[\]-~]|\\["\\]){{1,{_MAX_LENGTH}}}"|[!#-+\--:<-\[\]-~]{{1,{_MAX_LENGTH}}})$'


class IdempotencyKeyError(DomainError):
    """The header is missing where it is required, or is not a key."""

    code = "IDEMPOTENCY_KEY_INVALID"
    message = (
        f'{HEADER} has to be one string of 1 to {_MAX_LENGTH} visible characters, such as "a UUID"'
    )


class IdempotentRoute(APIRoute):
    """A route that honours ``Idempotency-Key``; see the module. It needs a database.

    >>> router = APIRouter(route_class=IdempotentRoute)
    >>> paid: list[str] = []
    >>> @router.post("/payments/{number}")
    ... async def pay(number: str, uow: UnitOfWorkDep) -> str:
    ...     paid.append(number)
    ...     return f"paid {len(paid)}"
    >>> service.router.include_router(router)
    >>> key = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}
    >>> async with running(service) as client:
    ...     [(await client.post("/api/v1/payments/7", headers=key)).json() for _ in range(2)]
    ['paid 1', 'paid 1']

    Raises:
        DeclarationError: the endpoint is a generator, whose answer is a stream.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.guarded = bool({m.upper() for m in options.get("methods") or ()} - _SAFE_METHODS)
        if self.guarded:
            if inspect.isgeneratorfunction(endpoint) or inspect.isasyncgenfunction(endpoint):
                raise DeclarationError(
                    f"{endpoint.__qualname__} answers with a stream, which {HEADER} cannot repeat: "
                    "put it on a router of another route class"
                )
            endpoint = _claiming(endpoint)
            _document(options)
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Make what answers a request: between the endpoint and the commit we keep its answer.

        FastAPI leaves dependencies of scope "function", of which the unit of work is one, behind
        this handler and before the answer is sent.
        """
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if HEADER in request.headers:
                await request.body()  # it is kept; a form or a stream is then read from there
            try:
                response = await handler(request)
            except _Answered as answered:
                return answered.response
            claim: _Claim | None = request.scope.get(_CLAIM)
            if claim is not None:
                claim.keys.remember(claim.request, _answer_of(response))
            return response

        return handle if self.guarded else handler


async def _require_key(request: Request) -> None:
    route = request.scope.get("route")
    if not isinstance(route, IdempotentRoute) or request.method in _SAFE_METHODS:
        raise RuntimeError(
            f"{request.method} {request.url.path} requires a key that nothing honours: "
            "make its router with APIRouter(route_class=IdempotentRoute)"
        )
    if HEADER not in request.headers:
        raise IdempotencyKeyError(
            f"This operation requires the header {HEADER}: send a new unique value with each "
            "operation, such as a UUID, and the same value when you try it again",
            code="IDEMPOTENCY_KEY_MISSING",
        )


IdempotencyKeyRequired = Depends(_require_key)
"""For ``dependencies=`` of a route or a router: without a key the answer is 400."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """A request that is ours to answer."""

    keys: IdempotencyKeys
    request: KeyedRequest


class _Answered(Exception):  # noqa: N818 - no error: the way past the endpoint
    """The request is answered without the endpoint."""

    def __init__(self, response: Response) -> None:
        self.response = response


async def _claim(request: Request, uow: UnitOfWorkDep) -> None:
    """Claim the key of the request, or answer it."""
    key = _read_key(request.headers.getlist(HEADER))
    if key is None or request.method in _SAFE_METHODS:
        return
    context = current()
    keyed = KeyedRequest(
        key,
        _fingerprint(request, await request.body()),
        tenant_id=(context and context.tenant_id) or "",
        user_id=(context and context.user_id) or "",
    )
    keys = IdempotencyKeys(uow.session)
    try:
        known = await keys.claim(keyed)
    except IdempotencyKeyInUseError as error:
        response = answer_error(request.scope, error)
    else:
        if known is None:
            request.scope[_CLAIM] = _Claim(keys, keyed)
            return
        response = _response_of(known)
    # What a dependency wrote, it wrote for a request that is not worked on now.
    await uow.session.rollback()
    raise _Answered(response)


def _claiming(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Give the endpoint one more dependency, the last: FastAPI solves them in order."""
    name = "_idempotency"

    @wraps(endpoint)  # through which FastAPI sees whether to await it or to run it in a thread
    def call(**values: Any) -> Any:
        del values[name]
        return endpoint(**values)

    signature = inspect.signature(endpoint)
    last = inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[None, Depends(_claim)]
    )
    parameters = [*signature.parameters.values(), last]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


def _read_key(headers: Sequence[str]) -> str | None:
    if not headers:
        return None
    value = headers[0].strip(" \t")
    quoted = _STRING.fullmatch(value)
    key = _ESCAPED.sub(r"\1", quoted[1]) if quoted else value
    if len(headers) > 1 or len(key) > _MAX_LENGTH or not (quoted or _BARE.fullmatch(value)):
        raise IdempotencyKeyError
    return key


def _fingerprint(request: Request, body: bytes) -> bytes:
    digest = hashlib.sha256()
    path: str = request.scope["path"]
    for part in (request.method.encode(), path.encode(), request.scope["query_string"], body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def _answer_of(response: Response) -> Answer:
    body = getattr(response, "body", None)
    if not isinstance(body, bytes | memoryview):
        raise TypeError(
            f"a {type(response).__name__} is a stream, which {HEADER} cannot repeat: answer with "
            "a whole body, or put the route on a router of another route class"
        )
    headers = tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in response.raw_headers
        if name.lower() not in _NOT_KEPT
    )
    return Answer(response.status_code, headers, bytes(body))


def _response_of(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers += [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers
    ]
    response.headers[REPLAYED] = "true"
    return response


def _document(options: dict[str, Any]) -> None:
    """Show the header, and what may be answered for its sake, in the OpenAPI document."""
    dependencies: Sequence[params.Depends] = options.get("dependencies") or ()
    header = {
        "name": HEADER,
        "in": "header",
        "required": any(given.dependency is _require_key for given in dependencies),
        "description": (
            "A unique value of the client's choice, such as a UUID. A request that is sent again "
            "with the value it had before takes effect once and gets the same answer."
        ),
        "schema": {"type": "string", "pattern": _PATTERN},
        "examples": {"UUID": {"value": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}},
    }
    extra = dict(options.get("openapi_extra") or {})
    extra["parameters"] = [*extra.get("parameters", ()), header]
    options["openapi_extra"] = extra
    ours = error_responses(IdempotencyKeyError, IdempotencyKeyInUseError, IdempotencyKeyReusedError)
    options["responses"] = {**ours, **(options.get("responses") or {})}
