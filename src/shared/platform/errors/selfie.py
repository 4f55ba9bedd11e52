"""Errors of the selfie service."""

from __future__ import annotations

from shared.errors.base import NotFoundError, ValidationError


class SelfieNotFoundError(NotFoundError):
    """No such selfie."""

    code = "SELFIE_NOT_FOUND"
    selfie_id: str | None = None
    user_id: str | None = None


class InvalidImageFormatError(ValidationError):
    """The image is in a format that nobody here reads."""

    code = "INVALID_IMAGE_FORMAT"
    provided_format: str | None = None
    supported_formats: list[str] | None = None


class ImageTooLargeError(ValidationError):
    """The image has too many bytes."""

    code = "IMAGE_TOO_LARGE"
    size_bytes: int | None = None
    max_size_bytes: int | None = None


class ImageTooSmallError(ValidationError):
    """The image has too few pixels."""

    code = "IMAGE_TOO_SMALL"
    width: int | None = None
    height: int | None = None
    min_width: int | None = None
    min_height: int | None = None


class NoFaceDetectedError(ValidationError):
    """The image shows no face."""

    code = "NO_FACE_DETECTED"
    message = "No face detected in the image"


class MultipleFacesDetectedError(ValidationError):
    """The image shows more than one face."""

    code = "MULTIPLE_FACES_DETECTED"
    message = "Multiple faces detected in the image"
    face_count: int | None = None


class PoorImageQualityError(ValidationError):
    """The image is too blurred, dark or noisy to be analysed."""

    code = "POOR_IMAGE_QUALITY"
    message = "Image quality too low for analysis"
    quality_score: float | None = None
    min_quality_score: float | None = None
    quality_issues: list[str] | None = None
