"""The sections of the settings: from files and variables, without a secret coming out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.config import ConfigError, ServiceSettings, explain, load_settings

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "shared.yml").write_text(
        """
http_client:
  services:
    credit-service: http://credit:8000/api/v1
service_auth:
  secrets:
    2026-11: ${SERVICE_SECRET}
"""
    )
    return tmp_path


def load(root: Path, **environ: str) -> ServiceSettings:
    return load_settings(ServiceSettings, "webhook-service", root=root, environ=environ)


def test_they_come_from_a_file(root: Path) -> None:
    settings = load(root, SERVICE_SECRET=SECRET)
    assert settings.http_client.services == {"credit-service": "http://credit:8000/api/v1"}
    assert settings.service_auth.signing_key_id == "2026-11"
    assert settings.service_auth.secrets["2026-11"].get_secret_value() == SECRET


def test_they_come_from_variables(root: Path) -> None:
    settings = load(
        root,
        WEBHOOK_HTTP_CLIENT__SERVICES='{"credit-service": "http://127.0.0.1:9"}',
        WEBHOOK_SERVICE_AUTH__SECRETS=f'{{"a": "{SECRET}", "b": "{SECRET[::-1]}"}}',
        WEBHOOK_SERVICE_AUTH__SIGN_WITH="b",
    )
    assert settings.http_client.services == {"credit-service": "http://127.0.0.1:9"}
    assert settings.service_auth.signing_key_id == "b"


def test_a_secret_is_neither_shown_nor_told_in_an_error(root: Path) -> None:
    environ = {"SERVICE_SECRET": SECRET}
    settings = load(root, **environ)
    shown = explain(ServiceSettings, "webhook-service", root=root, environ=environ)
    assert SECRET not in repr(settings) + str(settings.model_dump()) + repr(shown)
    assert [s.origin for s in shown if s.key.startswith("service_auth.secrets")] != []
    with pytest.raises(ConfigError) as wrong:
        load(root, SERVICE_SECRET=SECRET[:31])
    assert "secrets" in str(wrong.value)
    assert SECRET[:31] not in str(wrong.value)
