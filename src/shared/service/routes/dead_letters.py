"""The routes that show dead letters, replay and discard them."""

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, Self, get_type_hints

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, create_model

from shared.api import ApiResponse, success_response
from shared.api.openapi import raises
from shared.errors import ConflictError, NotFoundError, ValidationError
from shared.messaging import (
    DeadLetter,
    DeadLetterEdit,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterHead,
    DeadLetterOutcome,
    DeadLetters,
)

_LIMIT = 1000


def _no_word_for_a_number(value: object) -> object:
    """Refuse yes and no, and digits in quotes; 5.0 is 5, as JSON Schema has it."""
    if isinstance(value, (bool, str)):
        raise ValueError(f"{value!r} is not a whole number")  # noqa: TRY004 - pydantic takes it for its own
    return value


_Whole = Annotated[int, BeforeValidator(_no_word_for_a_number)]
_Rate = Annotated[float, Field(strict=True, gt=0)]
_Base64 = Annotated[
    str, Field(pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")
]
_Why = Annotated[str, Field(min_length=1, pattern=r"\S")]


def _fields_of(kind: type, *, required: bool, **more: Any) -> type[BaseModel]:
    """Make a model of the fields that a data class declares, and of `more`."""
    hints = get_type_hints(kind, include_extras=True)
    fields: Any = {name: (hint, ... if required else None) for name, hint in hints.items()}
    made: type[BaseModel] = create_model(kind.__name__, **fields, **more)
    return made


_Filter: Any = _fields_of(DeadLetterFilter, required=False)
_Group: Any = _fields_of(DeadLetterGroup, required=True)
_Head: Any = _fields_of(
    DeadLetterHead, required=True, trace_id=(str | None, ...), correlation_id=(str | None, ...)
)


class DeadLetterQuery(_Filter):  # type: ignore[misc]
    """Which dead letters are meant; see `shared.messaging.DeadLetterFilter`."""

    model_config = ConfigDict(extra="forbid")

    def to_filter(self) -> DeadLetterFilter:
        """Return the filter."""
        fields = {name: getattr(self, name) for name in DeadLetterQuery.model_fields}
        return DeadLetterFilter(**fields)


class PageQuery(DeadLetterQuery):
    """Which of them, and how many."""

    limit: int = Field(default=100, ge=1, le=_LIMIT)
    after: int = Field(default=0, ge=0)


class DeadLetterSummary(_Head):  # type: ignore[misc]
    """A dead letter without its body."""

    model_config = ConfigDict(from_attributes=True)


class WholeDeadLetter(DeadLetterSummary):
    """A dead letter with its body: as text where it is text, and as base64 in any case."""

    body: str | None
    body_base64: str

    @classmethod
    def of(cls, letter: DeadLetter) -> Self:
        """Show a dead letter."""
        known = DeadLetterSummary.model_validate(letter).model_dump()
        return cls(**known, body=letter.text, body_base64=b64encode(letter.body).decode())


class DeadLetterList(BaseModel):
    """A page, oldest first. `next_after` is the `after` of the next one, null on the last."""

    model_config = ConfigDict(from_attributes=True)

    letters: list[DeadLetterSummary]
    next_after: int | None


class Group(_Group):  # type: ignore[misc]
    """Dead letters of one cause."""

    model_config = ConfigDict(from_attributes=True)


class ReplayRequest(BaseModel):
    """How to replay one: as it is, with values set by their path, or with another body."""

    model_config = ConfigDict(extra="forbid")

    values: dict[str, Any] = {}
    body: str | None = None
    body_base64: _Base64 | None = None
    reason: str = ""

    def edit(self) -> DeadLetterEdit | None:
        """Return what is to be changed.

        Raises:
            ValidationError: two bodies are given.
        """
        if self.body is not None and self.body_base64 is not None:
            raise ValidationError("give body or body_base64, not both", field="body")
        body = self.body.encode() if self.body is not None else None
        if self.body_base64 is not None:
            body = b64decode(self.body_base64, validate=True)
        if body is None and not self.values:
            return None
        return DeadLetterEdit(body=body, values=self.values)


class DiscardRequest(BaseModel):
    """Why it is discarded."""

    model_config = ConfigDict(extra="forbid")

    reason: _Why


class Bulk(BaseModel):
    """Which are meant, and how many in this request."""

    model_config = ConfigDict(extra="forbid")

    where: DeadLetterQuery | None = None
    sequences: list[_Whole] | None = Field(default=None, max_length=_LIMIT)
    dry_run: StrictBool = False
    limit: _Whole = Field(default=100, ge=1, le=_LIMIT)


class BulkReplay(Bulk):
    """Which are to be replayed, how fast, and how many in this request."""

    values: dict[str, Any] = {}
    reason: str = ""
    rate_per_second: _Rate | None = None


class BulkDiscard(Bulk):
    """Which are to be discarded, why, and how many in this request."""

    reason: _Why


class Replayed(BaseModel):
    """Where it was replayed to; `duplicate` if an earlier replay had published it already."""

    model_config = ConfigDict(from_attributes=True)

    stream: str
    sequence: int
    duplicate: bool


class Failure(BaseModel):
    """Why one of many stayed."""

    sequence: int
    code: str
    message: str


class BulkResult(BaseModel):
    """What was done, or in a dry run would be. `more` if the limit was reached: ask again."""

    dry_run: bool
    done: list[int]
    failed: list[Failure]
    more: bool


class AuditEntry(BaseModel):
    """Who did what with a dead letter."""

    model_config = ConfigDict(from_attributes=True)

    sequence: int
    action: Literal["replayed", "discarded", "restored"]
    actor: str
    reason: str
    at: datetime
    letter: DeadLetterSummary
    result_stream: str | None
    result_sequence: int | None
    edited: str | None
    changes: list[Annotated[dict[str, Any], BeforeValidator(asdict)]]
    changes_cut: bool


class Audit(BaseModel):
    """A page, oldest first. `next_after` is the `after` of the next one, null on the last."""

    model_config = ConfigDict(from_attributes=True)

    records: list[AuditEntry]
    next_after: int | None


def create_dead_letters_router(letters: Callable[[], DeadLetters]) -> APIRouter:
    """Make the routes under `/dead-letters`; for operators, see `create_operations_router`.

    The stream of dead letters is one for all services: each of them shows, and replays, the
    dead letters of all.

    Args:
        letters: returns the dead letters, once the service runs.
    """
    router = APIRouter(prefix="/dead-letters", tags=["operations"])

    @router.get("")
    @raises(ValidationError)
    async def page(query: Annotated[PageQuery, Query()]) -> ApiResponse[DeadLetterList]:
        """List dead letters without their bodies, oldest first."""
        found = await letters().page(query.to_filter(), limit=query.limit, after=query.after)
        return success_response(DeadLetterList.model_validate(found))

    @router.get("/groups")
    @raises(ValidationError)
    async def groups(query: Annotated[DeadLetterQuery, Query()]) -> ApiResponse[list[Group]]:
        """Count dead letters by handler and fingerprint, the largest group first."""
        found = await letters().groups(query.to_filter())
        return success_response([Group.model_validate(group) for group in found])

    @router.get("/audit")
    async def audit(
        letter: Annotated[int | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=_LIMIT)] = 100,
        after: Annotated[int, Query(ge=0)] = 0,
    ) -> ApiResponse[Audit]:
        """List who replayed or discarded what, when and why, oldest first."""
        found = await letters().audit(letter=letter, limit=limit, after=after)
        return success_response(Audit.model_validate(found))

    @router.get("/{sequence:int}")
    @raises(NotFoundError)
    async def show(sequence: int) -> ApiResponse[WholeDeadLetter]:
        """Show one dead letter, whole."""
        dead = letters()
        letter = await dead.get(sequence)
        with suppress(ConflictError):  # its own body is lost; its claim is what there is
            letter = await dead.resolved(letter)
        return success_response(WholeDeadLetter.of(letter))

    @router.post("/replay")
    @raises(ValidationError)
    async def replay_many(wanted: BulkReplay, request: Request) -> ApiResponse[BulkResult]:
        """Replay those that fit, or say which it would be."""
        edit = DeadLetterEdit(values=wanted.values) if wanted.values else None
        outcomes = letters().replay_all(
            _meant(wanted),
            edit=edit,
            dry_run=wanted.dry_run,
            rate_per_second=wanted.rate_per_second,
            limit=wanted.limit,
            actor=_actor(request),
            reason=wanted.reason,
        )
        return success_response(await _result(outcomes, wanted))

    @router.post("/discard")
    @raises(ValidationError)
    async def discard_many(wanted: BulkDiscard, request: Request) -> ApiResponse[BulkResult]:
        """Discard those that fit, or say which it would be."""
        outcomes = letters().discard_all(
            _meant(wanted),
            wanted.reason,
            dry_run=wanted.dry_run,
            limit=wanted.limit,
            actor=_actor(request),
        )
        return success_response(await _result(outcomes, wanted))

    @router.post("/{sequence:int}/replay")
    @raises(NotFoundError, ConflictError, ValidationError)
    async def replay(
        sequence: int, request: Request, wanted: ReplayRequest | None = None
    ) -> ApiResponse[Replayed]:
        """Publish one to its subject again, and take it off the list."""
        wanted = wanted or ReplayRequest()
        ack = await letters().replay(
            sequence, edit=wanted.edit(), actor=_actor(request), reason=wanted.reason
        )
        return success_response(Replayed.model_validate(ack))

    @router.post("/{sequence:int}/discard")
    @raises(NotFoundError, ValidationError)
    async def discard(
        sequence: int, wanted: DiscardRequest, request: Request
    ) -> ApiResponse[DeadLetterSummary]:
        """Take one off the list; the audit keeps it for 30 days more."""
        letter = await letters().get(sequence)
        await letters().discard(sequence, wanted.reason, actor=_actor(request))
        return success_response(DeadLetterSummary.model_validate(letter))

    return router


def _meant(wanted: Bulk) -> DeadLetterFilter | list[int]:
    if (wanted.where is None) == (wanted.sequences is None):
        raise ValidationError(
            "give where or sequences; an empty where means all of them", field="where"
        )
    return wanted.where.to_filter() if wanted.where is not None else wanted.sequences or []


async def _result(outcomes: AsyncIterator[DeadLetterOutcome], wanted: Bulk) -> BulkResult:
    done: list[int] = []
    failed: list[Failure] = []
    async for outcome in outcomes:
        if outcome.error is None:
            done.append(outcome.letter.sequence)
        else:
            error = outcome.error
            sequence = outcome.letter.sequence
            failed.append(Failure(sequence=sequence, code=error.code, message=error.message or ""))
    more = len(done) + len(failed) >= wanted.limit
    return BulkResult(dry_run=wanted.dry_run, done=done, failed=failed, more=more)


def _actor(request: Request) -> str:
    """Name who asks: the operator or service that was let in, and where from."""
    who = getattr(request.state, "operator", "operator")
    return f"{who} at {request.client.host}" if request.client else str(who)
