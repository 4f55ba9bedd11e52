"""The envelope of a success, written part by part and put together as bytes."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from shared.api.models import ApiResponse

__all__ = ["EnvelopeWriter", "UnfitError"]


class UnfitError(Exception):
    """A value is no envelope of a success that this writer can write."""


class EnvelopeWriter:
    """Writes envelopes as the response model `ApiResponse[X]` has them.

    The data is validated as an `X` and serialised as one, as FastAPI does it with the whole
    envelope: what `X` does not name is left out. The other parts are our own and valid already.

    Args:
        data: the type of the data, `X | None`.
        by_alias: whether fields are written under their aliases.
    """

    def __init__(self, data: Any, model: type[ApiResponse[Any]], *, by_alias: bool) -> None:
        self._data: TypeAdapter[Any] = TypeAdapter(data)
        self._model = model
        self._by_alias = by_alias

    @classmethod
    def of(cls, model: Any, *, by_alias: bool) -> EnvelopeWriter | None:
        """Make the writer for a response model; ``None`` if that is not our envelope itself."""
        if not _is_envelope(model):
            return None
        return cls(model.model_fields["data"].annotation, model, by_alias=by_alias)

    def write(self, value: object) -> bytes:
        """Write an envelope.

        Raises:
            UnfitError: it is none, it tells of an error, or its data is not of the type.
        """
        if not isinstance(value, ApiResponse) or value.error is not None:
            raise UnfitError
        data = value.data
        if type(value) is not self._model:  # else its data was validated when it was made
            if not _is_envelope(type(value)):
                raise UnfitError
            try:
                data = self._data.validate_python(data, from_attributes=True)
            except ValidationError as error:
                raise UnfitError from error
        meta = value.meta
        parts = [
            b'{"data":',
            self._data.dump_json(data, by_alias=self._by_alias),
            b',"meta":',
            to_json(vars(meta) if meta.correlation_id is not None else meta),
        ]
        if value.pagination is not None:
            parts += b',"pagination":', to_json(value.pagination)
        if value.links is not None:
            parts += b',"links":', to_json(value.links)
        parts.append(b"}")
        return b"".join(parts)


def _is_envelope(model: Any) -> bool:
    """Whether it is `ApiResponse` or `ApiResponse[X]`, and no class made from them."""
    if model is ApiResponse:
        return True
    generic = getattr(model, "__pydantic_generic_metadata__", None) or {}
    return generic.get("origin") is ApiResponse
