"""A path of the first design: what it names lives in `shared.platform.errors.profile`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.platform.errors.profile import (
        ProfileAlreadyExistsError,
        ProfileCreationFailedError,
        ProfileNotFoundError,
    )

__all__ = [
    "ProfileAlreadyExistsError",
    "ProfileCreationFailedError",
    "ProfileNotFoundError",
]

__getattr__, __dir__ = handed_on(__name__)
