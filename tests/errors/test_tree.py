"""The promise to those who catch our errors: classes, codes, statuses and detail keys."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

import shared.errors
from shared.errors import CatalogueEntry, GlamBaseError, catalogue

DETAILS = {
    "analysis.AnalysisInProgressError": "current_analysis_id user_id started_at",
    "analysis.AnalysisNotCancellableError": "analysis_id current_status reason",
    "analysis.AnalysisNotFoundError": "analysis_id user_id",
    "infrastructure.CircuitOpenError": "service_name failure_count open_until",
    "base.ConflictError": "conflicting_resource current_state",
    "infrastructure.DatabaseError": "operation table error_code",
    "base.DomainError": "",
    "notification.EmailProviderError": "provider provider_error_code provider_message",
    "base.ForbiddenError": "required_permission resource",
    "selfie.ImageTooLargeError": "size_bytes max_size_bytes",
    "selfie.ImageTooSmallError": "width height min_width min_height",
    "base.InfrastructureError": "service retryable",
    "base.InternalError": "error_id",
    "selfie.InvalidImageFormatError": "provided_format supported_formats",
    "notification.InvalidRecipientError": "recipient reason",
    "catalog.ItemNotFoundError": "item_id merchant_id",
    "infrastructure.MessageBusError": "operation stream subject",
    "selfie.MultipleFacesDetectedError": "face_count",
    "analysis.NoCurrentAnalysisError": "user_id",
    "selfie.NoFaceDetectedError": "",
    "base.NotFoundError": "resource resource_id",
    "notification.NotificationNotFoundError": "notification_id merchant_id",
    "catalog.ParentSyncNotFoundError": "parent_sync_id",
    "selfie.PoorImageQualityError": "quality_score min_quality_score quality_issues",
    "notification.PreferencesNotFoundError": "user_id",
    "profile.ProfileAlreadyExistsError": "user_id existing_profile_id",
    "profile.ProfileCreationFailedError": "user_id reason",
    "profile.ProfileNotFoundError": "user_id profile_id",
    "base.RateLimitedError": "limit window retry_after",
    "infrastructure.RedisError": "operation key",
    "base.RequestTimeoutError": "timeout_seconds operation",
    "infrastructure.S3Error": "operation bucket key error_code",
    "selfie.SelfieNotFoundError": "selfie_id user_id",
    "base.ServiceUnavailableError": "",
    "catalog.SyncInProgressError": "current_sync_id merchant_id",
    "catalog.SyncNotCancellableError": "sync_id sync_status",
    "catalog.SyncNotFoundError": "sync_id",
    "catalog.SyncNotResumableError": "sync_id sync_status reason",
    "notification.TemplateNotFoundError": "template_name template_type",
    "notification.TemplateRenderError": "template_name missing_variables render_error",
    "base.UnauthorizedError": "auth_type",
    "notification.UnsubscribedError": "user_id notification_type unsubscribed_at",
    "infrastructure.UpstreamServiceError": (
        "upstream_service upstream_status upstream_error endpoint"
    ),
    "base.ValidationError": "field value",
}


def own_entries() -> list[CatalogueEntry]:
    return [entry for entry in catalogue() if entry.error.__module__.startswith("shared.errors")]


def load(path: str) -> type[GlamBaseError]:
    module, _, name = path.partition(".")
    error = getattr(import_module(f"shared.errors.{module}"), name)
    assert isinstance(error, type)
    assert issubclass(error, GlamBaseError)
    return error


def test_the_public_names() -> None:
    errors = {path.partition(".")[2] for path in DETAILS} | {"GlamBaseError"}
    others = {
        "CatalogueEntry",
        "MissingExtraError",
        "Outcome",
        "catalogue",
        "classify_http_error",
        "is_retryable_error",
        "missing_extra",
        "outcome_of",
        "with_error_mapping",
        "wrap_external_error",
    }
    assert shared.errors.__all__ == sorted(errors | others)
    assert all(hasattr(shared.errors, name) for name in shared.errors.__all__)


def test_the_drawing_is_the_tree() -> None:
    children: dict[type, list[CatalogueEntry]] = {}
    root, *entries = own_entries()
    for entry in entries:
        children.setdefault(entry.error.__base__ or object, []).append(entry)

    def draw(entry: CatalogueEntry, branch: str = "", below: str = "") -> list[str]:
        lines = [f"    {branch + entry.name:<44}{entry.status}  {entry.code}"]
        below_this = children.get(entry.error, [])
        for child in below_this[:-1]:
            lines += draw(child, f"{below}├── ", f"{below}│   ")
        for child in below_this[-1:]:
            lines += draw(child, f"{below}└── ", f"{below}    ")
        return lines

    assert "\n".join(draw(root)) in (shared.errors.__doc__ or "")


@pytest.mark.parametrize(("path", "keywords"), DETAILS.items())
def test_each_class_takes_its_details_by_name(path: str, keywords: str) -> None:
    error_class = load(path)
    values: dict[str, Any] = {keyword: f"a {keyword}" for keyword in keywords.split()}
    values.pop("retryable", None)
    error = error_class("What happened", **values)
    assert error.details.items() >= values.items()
    assert all(getattr(error, name) == value for name, value in values.items())
    assert (error.message, str(error)) == ("What happened", "What happened")
    offered = inspect.signature(error_class).parameters
    assert all(offered[name].kind is inspect.Parameter.KEYWORD_ONLY for name in values)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("analysis.AnalysisInProgressError", "Another analysis is already in progress"),
        ("analysis.NoCurrentAnalysisError", "No completed analysis available"),
        ("base.ForbiddenError", "Insufficient permissions"),
        ("base.InternalError", "An unexpected error occurred"),
        ("base.RateLimitedError", "Rate limit exceeded"),
        ("base.UnauthorizedError", "Authentication required"),
        ("catalog.SyncInProgressError", "Another sync is already in progress"),
        ("notification.UnsubscribedError", "Recipient has unsubscribed from notifications"),
        ("selfie.MultipleFacesDetectedError", "Multiple faces detected in the image"),
        ("selfie.NoFaceDetectedError", "No face detected in the image"),
        ("selfie.PoorImageQualityError", "Image quality too low for analysis"),
    ],
)
def test_a_default_message_can_be_left_out(path: str, message: str) -> None:
    error_class = load(path)
    assert error_class().to_dict()["message"] == message
    assert inspect.signature(error_class).parameters["message"].default == message


def test_the_catalogue_knows_a_services_own_errors() -> None:
    class ParcelLostError(shared.errors.NotFoundError):
        """The parcel is gone.

        For good.
        """

        code = "PARCEL_LOST"
        parcel_id: str | None = None

    entry = next(entry for entry in catalogue() if entry.error is ParcelLostError)
    assert (entry.name, entry.code, entry.status) == ("ParcelLostError", "PARCEL_LOST", 404)
    assert entry.details == ("resource", "resource_id", "parcel_id")
    assert (entry.summary, entry.depth) == ("The parcel is gone.", 3)


def test_every_error_says_in_one_line_what_it_means() -> None:
    assert [entry.name for entry in own_entries() if not entry.summary] == []


def test_importing_the_errors_loads_no_framework() -> None:
    code = """
import sys
import shared, shared.errors, shared.context, shared.idempotency
heavy = {"fastapi", "httpx", "nats", "pydantic", "pydantic_core", "sqlalchemy", "starlette"}
loaded = sorted(heavy & set(sys.modules))
sys.exit(f"loaded: {loaded}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
