"""A contract: what is spoken on one subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json

from shared.events.streams import Streams, check_subject, stream_for_subject

if TYPE_CHECKING:
    from shared.events.envelope import Envelope

P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Contract(Generic[P]):
    """A subject, the payload spoken on it, and the version of that payload's form.

    Raises:
        ValueError: the subject is malformed or holds a wildcard.

    """

    subject: str
    payload: type[P]
    version: int = 1

    def __post_init__(self) -> None:
        check_subject(self.subject)

    @property
    def stream(self) -> Streams:
        """The one stream that holds the subject; `ValueError` when its domain is unknown."""
        return stream_for_subject(self.subject)

    def read(self, envelope: Envelope) -> P:
        """Return the payload of an envelope as its type.

        Raises:
            pydantic.ValidationError: the payload does not fit.

        """
        # Read as JSON, not as Python values: models may be strict, or spell bytes in base64.
        return self.payload.model_validate_json(to_json(envelope.payload))
