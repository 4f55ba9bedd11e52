"""`glam doctor`, as typed."""

import json
import logging
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from shared.cli.app import app
from shared.config import NatsSettings
from shared.logging.standard_output import StandardOutput

SERVICE = """
from pydantic import BaseModel

from shared.events import Contract
from shared.service import Service


class Greeting(BaseModel):
    merchant: str


service = Service("hello-service", publishes=[Contract("cmd.merchant.greet", Greeting)])
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nats_settings: NatsSettings) -> Path:
    (tmp_path / "hello.py").write_text(SERVICE)
    (tmp_path / "config").mkdir()
    tell(tmp_path, nats_settings.servers[0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tell(project: Path, server: str) -> None:
    (project / "config" / "shared.yml").write_text(
        f"nats:\n  servers: [{server}]\n  connect_timeout_seconds: 1\ndatabase:\n  enabled: false\n"
    )


def doctor(*options: str) -> Result:
    return CliRunner().invoke(app, ["doctor", "hello.py", *options])


@pytest.mark.usefixtures("project")
def test_findings_are_told_with_reason_and_fix_and_decide_the_exit_code() -> None:
    told = doctor()
    assert told.exit_code == 1
    assert "stream-missing: stream MERCHANT" in told.output
    assert "why  What is published to it fails" in told.output
    assert "glam run hello.py" in told.output
    passed = doctor("--skip", "stream-missing", "--strict")
    assert passed.exit_code == 0, passed.output
    assert "stream-missing" not in passed.output
    found = json.loads(doctor("--only", "stream-missing", "--json").stdout)
    assert [finding["severity"] for finding in found] == ["error"]
    assert found[0].keys() == {"code", "severity", "about", "what", "why", "fix"}
    assert "is not a code" in doctor("--only", "stream-mising").output


def test_what_services_log_and_print_is_no_part_of_the_answer(project: Path) -> None:
    with (project / "hello.py").open("a") as code:
        code.write(
            '\nimport logging\nlogging.getLogger("hello").error("logged")\nprint("printed")\n'
        )
    output, root = StandardOutput(), logging.getLogger()
    root.addHandler(output)
    try:
        told = doctor("--only", "stream-missing", "--json")
    finally:
        root.removeHandler(output)
        output.close()
    assert [finding["code"] for finding in json.loads(told.stdout)] == ["stream-missing"]
    assert {"logged", "printed"} <= set(told.stderr.splitlines())


def test_nothing_to_look_at_is_another_exit_code(project: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        tell(project, f"nats://127.0.0.1:{listener.getsockname()[1]}")
        told = doctor()
    assert told.exit_code == 2, told.output
    assert "nats-unreachable" in told.output
