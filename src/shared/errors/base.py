"""The root of the error tree and the errors that any service may raise."""

from __future__ import annotations

import sys
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, ClassVar

from shared.errors.details import json_safe

if TYPE_CHECKING:
    from collections.abc import Mapping

if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations

    def _annotations(cls: type) -> dict[str, Any]:
        return get_annotations(cls, format=Format.FORWARDREF)
else:
    from inspect import get_annotations as _annotations

_OWN_FIELDS = frozenset({"code", "status", "message"})


class _KeywordSignature:
    """Tells `inspect.signature`, and so editors and docs, the detail keywords of a class."""

    def __get__(self, _: object, owner: type[GlamBaseError]) -> Signature | None:
        _, *parameters = signature(owner.__init__).parameters.values()
        if not parameters or parameters[-1].kind is not Parameter.VAR_KEYWORD:
            return None
        *named, rest = parameters
        default = getattr(owner, "message", Parameter.empty)
        named = [
            p.replace(default=default, annotation="str") if p.name == "message" else p
            for p in named
        ]
        taken = {parameter.name for parameter in named}
        named += [
            Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(owner, name))
            for name in owner.detail_fields
            if name not in taken
        ]
        return Signature([*named, rest])


class GlamBaseError(Exception):
    """The root: everything the chassis and the services raise on purpose.

    A class states what is its own, as class attributes: ``code`` and ``status`` of the answer, a
    default ``message``, and each annotated attribute with a default is a detail: a keyword of the
    constructor, an attribute of the error and a key of ``details``.

    >>> class ParcelLostError(NotFoundError):
    ...     code = "PARCEL_LOST"
    ...     parcel_id: str | None = None
    >>> ParcelLostError("No such parcel", parcel_id="p-1").to_dict()
    {'code': 'PARCEL_LOST', 'message': 'No such parcel', 'details': {'parcel_id': 'p-1'}}

    Args:
        message: what went wrong, fit for the caller's eyes. Needed unless the class has one.
        code: stands in for the class's code.
        status: stands in for the class's HTTP status.
        details: more facts for the caller, declared or not; details by name win over them.
        cause: the exception behind this one; becomes ``__cause__``.
        **extra: the details by name, those the class declares and any other. ``None`` is left
            out, every other value is kept, in the types of JSON.

    Raises:
        TypeError: no message, and the class has none.
    """

    code: str = "INTERNAL_ERROR"
    status: int = 500
    message: str

    detail_fields: ClassVar[tuple[str, ...]] = ()
    """The names of the declared details, those of the base classes first."""

    __signature__ = _KeywordSignature()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = [name for base in cls.__bases__ for name in getattr(base, "detail_fields", ())]
        declared = [
            name
            for name, kind in _annotations(cls).items()
            if name in vars(cls) and name not in _OWN_FIELDS and "ClassVar" not in str(kind)
        ]
        cls.detail_fields = tuple(dict.fromkeys([*inherited, *declared]))

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        status: int | None = None,
        details: Mapping[str, Any] | None = None,
        cause: BaseException | None = None,
        **extra: Any,
    ) -> None:
        if message is None:
            message = getattr(type(self), "message", None)
            if message is None:
                raise TypeError(f"{type(self).__name__} has no default message: say what happened")
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status
        given = dict(details or {})
        given.update((name, value) for name, value in extra.items() if value is not None)
        for name in self.detail_fields:
            if given.get(name) is not None:
                setattr(self, name, given[name])
            else:
                given[name] = getattr(type(self), name)
        self.details: dict[str, Any] = {
            name: json_safe(value) for name, value in given.items() if value is not None
        }
        self.cause = cause
        if cause is not None:
            self.__cause__ = cause

    def to_dict(self) -> dict[str, Any]:
        """Return ``code``, ``message`` and, if there are any, ``details``, ready for JSON."""
        error = {"code": self.code, "message": json_safe(self.message)}
        return {**error, "details": json_safe(self.details)} if self.details else error


class InfrastructureError(GlamBaseError):
    """Something that the service leans on failed; the caller did nothing wrong."""

    code = "INFRASTRUCTURE_ERROR"
    status = 503
    service: str | None = None
    retryable: bool = True


class DomainError(GlamBaseError):
    """The request makes no sense here; sent again unchanged it fails again."""

    code = "DOMAIN_ERROR"
    status = 400


class ValidationError(DomainError):
    """A value is not acceptable.

    >>> error = ValidationError("A quantity is 1 or more", field="quantity", value=0)
    >>> error.status, error.details
    (422, {'field': 'quantity', 'value': 0})
    """

    code = "VALIDATION_ERROR"
    status = 422
    field: str | None = None
    value: Any = None


class NotFoundError(DomainError):
    """What was asked for does not exist, or not for this caller.

    >>> error = NotFoundError("No invoice 7", resource="invoice", resource_id=7)
    >>> error.status, error.resource_id, outcome_of(error)
    (404, 7, <Outcome.DEAD_LETTER: 'dead_letter'>)
    """

    code = "NOT_FOUND"
    status = 404
    resource: str | None = None
    resource_id: Any = None


class ConflictError(DomainError):
    """The present state does not allow it; another state may.

    >>> error = ConflictError("Invoice 7 is not paid yet", current_state="open")
    >>> error.status, outcome_of(error)
    (409, <Outcome.RETRY: 'retry'>)
    """

    code = "CONFLICT"
    status = 409
    conflicting_resource: str | None = None
    current_state: str | None = None


class UnauthorizedError(DomainError):
    """Nobody knows who is asking."""

    code = "UNAUTHORIZED"
    status = 401
    message = "Authentication required"
    auth_type: str | None = None


class ForbiddenError(DomainError):
    """The one who asks may not."""

    code = "FORBIDDEN"
    status = 403
    message = "Insufficient permissions"
    required_permission: str | None = None
    resource: str | None = None


class RateLimitedError(DomainError):
    """Too many requests; ``retry_after`` is the wait in seconds, where it is known."""

    code = "RATE_LIMITED"
    status = 429
    message = "Rate limit exceeded"
    limit: int | None = None
    window: str | None = None
    retry_after: int | None = None


class ServiceUnavailableError(InfrastructureError):
    """A service cannot answer now; ``retry_after`` is the wait in seconds, where it is known."""

    code = "SERVICE_UNAVAILABLE"
    status = 503
    retry_after: int | None = None


class RequestTimeoutError(InfrastructureError):
    """No answer came in time."""

    code = "TIMEOUT"
    status = 504
    timeout_seconds: float | None = None
    operation: str | None = None


class InternalError(GlamBaseError):
    """A fault of our own; ``error_id`` finds it in the log."""

    code = "INTERNAL_ERROR"
    status = 500
    message = "An unexpected error occurred"
    error_id: str | None = None
