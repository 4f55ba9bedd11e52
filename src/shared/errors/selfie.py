"""A path of the first design: what it names lives in `shared.platform.errors.selfie`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.platform.errors.selfie import (
        ImageTooLargeError,
        ImageTooSmallError,
        InvalidImageFormatError,
        MultipleFacesDetectedError,
        NoFaceDetectedError,
        PoorImageQualityError,
        SelfieNotFoundError,
    )

__all__ = [
    "ImageTooLargeError",
    "ImageTooSmallError",
    "InvalidImageFormatError",
    "MultipleFacesDetectedError",
    "NoFaceDetectedError",
    "PoorImageQualityError",
    "SelfieNotFoundError",
]

__getattr__, __dir__ = handed_on(__name__)
