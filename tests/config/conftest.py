from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Lay out a root: `write(shared=..., service=..., dotenv=...)` gives its folder."""

    def lay_out(
        shared: str = "", service: str | None = None, dotenv: str | None = None, **others: str
    ) -> Path:
        services = tmp_path / "config" / "services"
        services.mkdir(parents=True, exist_ok=True)
        (tmp_path / "config" / "shared.yml").write_text(shared)
        if service is not None:
            (services / "credit-service.yml").write_text(service)
        if dotenv is not None:
            (tmp_path / ".env").write_text(dotenv)
        for name, text in others.items():
            (services / f"{name.replace('_', '-')}.yml").write_text(text)
        return tmp_path

    return lay_out
