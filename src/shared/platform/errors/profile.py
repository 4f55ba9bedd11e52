"""Errors of the profile service."""

from __future__ import annotations

from shared.errors.base import ConflictError, DomainError, NotFoundError


class ProfileNotFoundError(NotFoundError):
    """No such profile."""

    code = "PROFILE_NOT_FOUND"
    user_id: str | None = None
    profile_id: str | None = None


class ProfileAlreadyExistsError(ConflictError):
    """A user has one profile."""

    code = "PROFILE_ALREADY_EXISTS"
    user_id: str | None = None
    existing_profile_id: str | None = None


class ProfileCreationFailedError(DomainError):
    """A profile cannot be made of what is known about the user."""

    code = "PROFILE_CREATION_FAILED"
    status = 422
    user_id: str | None = None
    reason: str | None = None
