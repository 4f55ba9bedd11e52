"""What a missing optional part says."""

from __future__ import annotations


class MissingExtraError(ImportError):
    """An optional part of the package is not installed; the message is the line to type."""


def missing_extra(extra: str, cause: ImportError | None = None) -> MissingExtraError:
    """Return the error to raise when what the extra ``extra`` brings cannot be imported.

    try:
        import nats_server
    except ImportError as cause:
        raise missing_extra("dev", cause) from cause
    """
    error = MissingExtraError(
        f"pip install 'glam-shared[{extra}]'", name=cause.name if cause else None
    )
    error.__cause__ = cause
    return error
