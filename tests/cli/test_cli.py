"""The command `glam`, as typed."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from shared.cli.app import app
from shared.cli.target import load_service
from shared.config import NatsSettings
from shared.messaging import Bus, DeadLetters, Delivery
from shared.platform.streams import STREAMS

HELLO = """
from shared.config import ServiceSettings
from shared.service import Service


class HelloSettings(ServiceSettings):
    greeting: str = "hello"


service = Service("hello-service", settings=HelloSettings)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "shared.yml").write_text("api:\n  port: 8123\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def glam(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_help_names_every_verb() -> None:
    shown = glam("--help").output
    for verb in ("run", "up", "trace", "contracts", "errors", "config", "migrate", "dlq"):
        assert verb in shown


@pytest.mark.usefixtures("project")
def test_a_service_that_is_not_there_is_named() -> None:
    result = glam("config", "show", "nowhere.py")
    assert result.exit_code == 2
    assert "there is no file" in result.output


@pytest.mark.usefixtures("project")
def test_config_shows_where_a_value_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELLO_GREETING", "good day")
    shown = glam("config", "show", "hello.py", "--origin").output
    assert "good day" in shown
    assert "HELLO_GREETING" in shown
    assert "8123" in shown
    assert "shared.yml" in shown


@pytest.mark.usefixtures("project")
def test_a_setting_is_one_line_for_other_programs_and_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("HELLO_GREETING", "[bold] good [/day] " + "x" * 100)
    lines = glam("config", "show", "hello.py", "--origin").output.splitlines()
    (line,) = [line for line in lines if "greeting" in line]
    assert f"[bold] good [/day] {'x' * 100} │ HELLO_GREETING" in line
    assert any("database.idle_in_transaction_timeout_seconds" in line for line in lines)


def test_a_package_means_its_module_service() -> None:
    assert load_service("services.credit").name == "credit-service"
    assert load_service("services.credit.service:service").name == "credit-service"


def test_every_declared_subject_is_listed_with_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = glam("contracts").output
    line = next(line for line in shown.splitlines() if "evt.order.updated" in line)
    assert "WEBHOOKS" in line


def test_every_error_code_is_listed_with_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = glam("errors").output
    line = next(line for line in shown.splitlines() if "RATE_LIMITED" in line)
    assert "429" in line
    assert "Too many requests" in line


def test_a_trace_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    result = glam("trace", "4bf92f3577b34da6a3ce929d0e0e4736", "--logs", str(tmp_path))
    assert result.exit_code == 1
    assert "no span of trace" in result.output


def test_dead_letters_are_listed_shown_replayed_and_discarded(
    nats_settings: NatsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    server = nats_settings.servers[0]
    monkeypatch.setenv("GLAM_NATS_SERVERS", server)

    async def fill() -> None:
        async with Bus(nats_settings, name="test") as bus:
            await bus.ensure_stream(STREAMS["MERCHANT"])
            for number in (1, 2):
                delivery = Delivery(
                    subject="cmd.merchant.greet",
                    body=b"letter %d" % number,
                    headers={},
                    stream="MERCHANT",
                    sequence=number,
                    attempt=1,
                    published_at=datetime.now(UTC),
                )
                await DeadLetters(bus).store(
                    delivery,
                    durable="hello-service-greet",
                    service="hello-service",
                    reason="rejected",
                    error=ValueError("not so"),
                )

    asyncio.run(fill())
    assert "hello-service-greet" in glam("dlq", "list").output
    assert "letter 2" in glam("dlq", "show", "2").output
    assert glam("dlq", "replay", "1").exit_code == 0
    assert glam("dlq", "discard", "2", "--reason", "shop is gone").exit_code == 0
    assert "hello-service-greet" not in glam("dlq", "list").output
    missing = subprocess.run(
        [sys.executable, "-m", "shared.cli", "dlq", "show", "2"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert missing.returncode == 1
    assert missing.stderr.strip() == "Error: there is no dead letter 2"
