from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from shared.config import ConfigError, flatten_config, merged_config
from shared.config import loader as old_path

Write = Callable[..., Path]


def test_a_service_of_the_first_design_reads_its_model(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory is the service's, and nothing names the root."""
    root = write(
        shared="environment: dev\napi: {host: 0.0.0.0, port: 8000}\nnats: {url: '${NATS_URL}'}\n",
        service="service: {name: credit}\napi: {external_port: 8010}\ncustom: {deep: {key: [1]}}\n",
        dotenv="CREDIT_API__PORT=9000\nOTHER_DB_HOST=theirs\n",
    )
    here = root / "services" / "credit"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.delenv("GLAM_CONFIG_ROOT", raising=False)
    monkeypatch.setenv("NATS_URL", "nats://n")
    monkeypatch.setenv("CREDIT_DEBUG", "true")

    class Settings(BaseModel):
        environment: str
        debug: bool
        port: int = Field(alias="api.port")
        external_port: int = Field(alias="api.external_port")
        nats_url: str = Field(alias="nats.url")
        key: list[int] = Field(alias="custom.deep.key")

    flat = old_path.flatten_config(old_path.merged_config("credit-service", env_prefix="CREDIT"))
    settings = Settings(**flat)
    assert settings.model_dump() == {
        "environment": "dev",
        "debug": True,
        "port": 9000,
        "external_port": 8010,
        "nats_url": "nats://n",
        "key": [1],
    }
    assert not any("OTHER" in key or "other" in key for key in flat)


def test_the_three_spellings_meet_in_one_key(write: Write) -> None:
    root = write(service="database: {host: file}\n")

    def host(**environ: str) -> object:
        merged = merged_config("credit-service", env_prefix="CREDIT_", root=root, environ=environ)
        return merged["database"]["host"]

    assert host() == "file"
    assert host(CREDIT_DB_HOST="short") == "short"
    assert host(CREDIT_DATABASE__HOST="long") == "long"
    short = {"CREDIT_DB_HOST": "short"}
    merged = merged_config("credit-service", env_prefix="CREDIT", root=root, environ=short)
    assert merged["db_host"] == "short"


def test_a_variable_takes_the_type_the_file_gives_its_key(write: Write) -> None:
    root = write(service="port: 1\non: false\nrate: 0.5\nzip: '01234'\nlist: [1]\n")
    environ = {
        "CREDIT_PORT": "9000",
        "CREDIT_ON": "true",
        "CREDIT_RATE": "2",
        "CREDIT_ZIP": "12345",
        "CREDIT_LIST": "[2, 3]",
        "CREDIT_NEW": "12345",
    }
    merged = merged_config("credit-service", env_prefix="CREDIT", root=root, environ=environ)
    assert merged == {
        "port": 9000,
        "on": True,
        "rate": 2,
        "zip": "12345",
        "list": [2, 3],
        "new": "12345",
    }


def test_a_missing_service_file_is_file_not_found(write: Write) -> None:
    root = write(shared="a: 1")
    with pytest.raises(FileNotFoundError, match=r"config/services/credit-service\.yml"):
        merged_config("credit-service", env_prefix="CREDIT", root=root, environ={})


def test_a_file_that_is_not_well_written_is_an_error(write: Write) -> None:
    root = write(service="a: 1\na: 2\n")
    with pytest.raises(ConfigError, match=r"credit-service\.yml:2: a is already set in line 1"):
        merged_config("credit-service", env_prefix="CREDIT", root=root, environ={})


def test_a_reference_that_is_not_set_stays_with_a_warning(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    root = write(service="cache: {url: '${REDIS_URL}'}")
    with caplog.at_level(logging.WARNING):
        merged = merged_config("credit-service", env_prefix="CREDIT", root=root, environ={})
    assert merged["cache"]["url"] == "${REDIS_URL}"
    assert "${REDIS_URL} is not set" in caplog.text


def test_the_process_s_environment_is_left_alone(write: Write) -> None:
    root = write(service="", dotenv="CREDIT_DB_HOST=x\n")
    before = dict(os.environ)
    merged_config("credit-service", env_prefix="CREDIT", root=root)
    assert dict(os.environ) == before


def test_flatten_config() -> None:
    data: dict[Any, Any] = {"a": {"b": {"c": 1}}, "d": [1], "e": {}, 5: None}
    assert flatten_config(data) == {"a.b.c": 1, "d": [1], "5": None}
    assert flatten_config({"a": {"b": 1}}, "x", "__") == {"x__a__b": 1}
