from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from shared.api import create_operations_router
from shared.config import ApiSettings, ServiceSettings


def paths(environment: str, **api: Any) -> set[str]:
    settings = ServiceSettings(environment=environment, api=ApiSettings(**api))
    app = FastAPI()
    app.include_router(create_operations_router(settings, service="shop-service", version="1"))
    return set(app.openapi()["paths"])


@pytest.mark.parametrize("environment", ["dev", "staging"])
def test_outside_of_prod_they_are_there_unless_unwanted(environment: str) -> None:
    assert paths(environment) == {"/info", "/log-level"}
    assert paths(environment, info=False) == {"/log-level"}
    assert paths(environment, log_level=False) == {"/info"}


def test_in_prod_they_are_not_there_unless_wanted() -> None:
    assert paths("prod") == set()
    assert paths("prod", info=True) == {"/info"}
    assert paths("prod", log_level=True) == {"/log-level"}
