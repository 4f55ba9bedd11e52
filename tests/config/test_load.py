from __future__ import annotations

import itertools
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, SecretStr, ValidationError

from shared.config import (
    ConfigError,
    Section,
    ServiceSettings,
    explain,
    load_settings,
)

Write = Callable[..., Path]


class Mail(Section):
    host: str = "localhost"
    api_key: str = ""
    retries: int = Field(default=3, alias="attempts")


class CreditSettings(ServiceSettings):
    trial_credits: int = 100
    limits: Mapping[str, int] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)
    signing_key: SecretStr | None = None
    mail: Mail = Mail()


def load(root: Path, environ: Mapping[str, str] | None = None) -> CreditSettings:
    return load_settings(CreditSettings, "credit-service", root=root, environ=environ or {})


def mistakes(root: Path, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(root, environ)
    return [str(mistake) for mistake in caught.value.mistakes]


def origins(root: Path, environ: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
    settings = explain(CreditSettings, "credit-service", root=root, environ=environ or {})
    return {setting.key: (setting.value, setting.origin) for setting in settings}


LAYERS = ("shared", "service", "dotenv", "environ")


@pytest.mark.parametrize(
    "present", [c for n in range(1, 5) for c in itertools.combinations(LAYERS, n)]
)
def test_the_highest_layer_that_sets_a_key_wins(write: Write, present: tuple[str, ...]) -> None:
    root = write(
        shared="database: {host: shared}" if "shared" in present else "",
        service="database: {host: service}" if "service" in present else None,
        dotenv="CREDIT_DB_HOST=dotenv" if "dotenv" in present else None,
    )
    environ = {"CREDIT_DB_HOST": "environ"} if "environ" in present else {}
    assert load(root, environ).database.host == present[-1]


@pytest.mark.parametrize(
    ("file", "environ"),
    [
        ("", {"CREDIT_DB_HOST": "db"}),
        ("", {"CREDIT_DATABASE__HOST": "db"}),
        ("database: {host: db}", {}),
        ("database: {host: lower}", {"CREDIT_DB_HOST": "db"}),
        ("database: {host: lower}", {"CREDIT_DATABASE__HOST": "db"}),
    ],
)
def test_three_spellings_set_one_key(write: Write, file: str, environ: dict[str, str]) -> None:
    assert load(write(service=file), environ).database.host == "db"


def test_every_documented_database_variable_is_read(write: Write) -> None:
    database = load(
        write(),
        {
            "GLAM_IN_CONTAINER": "yes",
            "CREDIT_DB_HOST": "db",
            "CREDIT_DB_PORT": "6000",
            "CREDIT_DB_PORT_EXTERNAL": "6001",
            "CREDIT_DB_NAME": "credits",
            "CREDIT_DB_USER": "me",
            "CREDIT_DB_PASSWORD": "p@ss/word",
            "CREDIT_DB_ENABLED": "false",
            "CREDIT_DB_POOL_SIZE": "7",
            "CREDIT_DB_MAX_OVERFLOW": "0",
            "CREDIT_DB_POOL_PRE_PING": "0",
            "CREDIT_DB_POOL_RECYCLE": "60",
            "CREDIT_DB_ECHO": "true",
            "CREDIT_DB_ASYNC_DRIVER": "asyncpg",
        },
    ).database
    assert database.password is not None
    assert database.password.get_secret_value() == "p@ss/word"
    assert database.model_dump(include={"host", "port", "name", "user", "enabled", "echo"}) == {
        "host": "db",
        "port": 6000,
        "name": "credits",
        "user": "me",
        "enabled": False,
        "echo": True,
    }
    assert (database.pool_size, database.max_overflow, database.pool_recycle_seconds) == (7, 0, 60)
    assert database.pool_pre_ping is False


def test_messaging_and_logging_variables_are_read_with_and_without_prefix(write: Write) -> None:
    common = {
        "CREDIT_NATS_SERVERS": "nats://a:4222, nats://b:4222",
        "NATS_USER": "all",
        "NATS_PASSWORD": "pw",
        "LOG_LEVEL": "debug",
        "APP_ENV": "prod",
    }
    settings = load(write(), common)
    assert settings.nats.servers == ("nats://a:4222", "nats://b:4222")
    assert settings.nats.user == "all"
    assert settings.logging.level == "DEBUG"
    assert settings.environment == "prod"
    settings = load(write(), {**common, "CREDIT_LOG_LEVEL": "ERROR", "CREDIT_NATS_USER": "credit"})
    assert settings.logging.level == "ERROR"
    assert settings.nats.user == "credit"


def test_nats_may_stand_under_infrastructure(write: Write) -> None:
    root = write(shared="infrastructure:\n  nats: {servers: [nats://n]}\n  redis: {url: x}")
    assert load(root).nats.servers == ("nats://n",)


def test_values_are_typed(write: Write) -> None:
    settings = load(
        write(service="limits: {day: 5, hour: 1}"),
        {
            "CREDIT_TRIAL_CREDITS": "7",
            "CREDIT_LIMITS__DAY": "9",
            "CREDIT_TAGS": "a, b",
            "CREDIT_MAIL": '{"host": "smtp", "attempts": 1}',
            "CREDIT_API__REQUEST_TIMEOUT_SECONDS": "",
        },
    )
    assert settings.trial_credits == 7
    assert settings.limits == {"day": 9, "hour": 1}
    assert settings.tags == ["a", "b"]
    assert (settings.mail.host, settings.mail.retries) == ("smtp", 1)
    assert settings.api.request_timeout_seconds is None
    assert load(write(), {"CREDIT_TAGS": '["a,b"]'}).tags == ["a,b"]


def test_an_alias_and_the_field_s_name_are_one_key(write: Write) -> None:
    root = write(shared="mail: {attempts: 1}", service="mail: {retries: 2}")
    assert load(root).mail.retries == 2


def test_references_are_filled_from_the_environment(write: Write) -> None:
    root = write(
        service="database:\n"
        "  host: ${HOST}\n"
        "  name: ${NAME:-glam}\n"
        "  port: ${PORT:-5433}\n"
        "  user: $${USER}\n"
        "tags: ['${HOST}-${NAME:-x}']\n",
        dotenv="NAME=from_dotenv\n",
    )
    settings = load(root, {"HOST": "db"})
    assert settings.database.host == "db"
    assert settings.database.name == "from_dotenv"
    assert settings.database.port == 5433
    assert settings.database.user == "${USER}"
    assert settings.tags == ["db-from_dotenv"]


def test_a_reference_counts_only_where_its_value_does(write: Write) -> None:
    root = write(service="database:\n  host: ${HOST}\ncache:\n  url: ${REDIS_URL}\n")
    assert mistakes(root) == [
        (
            "config/services/credit-service.yml:2: database.host needs the variable HOST,"
            " which is not set"
        )
    ]
    assert load(root, {"CREDIT_DB_HOST": "db"}).database.host == "db"


def test_all_mistakes_are_told_together_with_place_and_nearest_key(write: Write) -> None:
    root = write(
        shared="databse:\n  host: x\n",
        service="database:\n  hots: y\n  pool_size: many\ntrial_credit: 5\n",
        dotenv="# ours\n\nCREDIT_NATS_SERVRES=n\nPROFILE_DB_HOTS=theirs\n",
    )
    assert mistakes(root, {"CREDIT_DB_HOTS": "z", "CREDIT_API__PORT": "eighty"}) == [
        "config/shared.yml:2: unknown key databse.host; did you mean database.host?",
        (
            "config/services/credit-service.yml:2: unknown key database.hots;"
            " did you mean database.host?"
        ),
        (
            "config/services/credit-service.yml:4: unknown key trial_credit;"
            " did you mean trial_credits?"
        ),
        ".env:3 CREDIT_NATS_SERVRES: unknown variable; did you mean CREDIT_NATS_SERVERS?",
        "CREDIT_DB_HOTS: unknown variable; did you mean CREDIT_DB_HOST?",
        (
            "CREDIT_API__PORT: api.port: Input should be a valid integer,"
            " unable to parse string as an integer"
        ),
        (
            "config/services/credit-service.yml:3: database.pool_size: Input should be a valid"
            " integer, unable to parse string as an integer"
        ),
    ]


def test_a_key_below_a_plain_value_is_unknown(write: Write) -> None:
    assert mistakes(write(), {"CREDIT_DATABASE__HOST__NAME": "x"}) == [
        "CREDIT_DATABASE__HOST__NAME: unknown variable; did you mean CREDIT_DATABASE__NAME?"
    ]


def test_two_variables_for_one_key_must_agree(write: Write) -> None:
    both = {"CREDIT_DB_HOST": "a", "CREDIT_DATABASE__HOST": "b"}
    assert mistakes(write(), both) == [
        "CREDIT_DB_HOST: database.host is also set by CREDIT_DATABASE__HOST, to something else"
    ]
    assert load(write(), dict.fromkeys(both, "a")).database.host == "a"


def test_sections_of_other_services_are_no_mistake(write: Write) -> None:
    sections = ("service", "infrastructure", "monitoring", "cache")
    load(write(shared="".join(f"{section}: {{any: 1}}\n" for section in sections)))


def test_variables_of_a_service_with_a_longer_prefix_are_not_ours(write: Write) -> None:
    root = write(credit_card_service="")
    load(root, {"CREDIT_CARD_DB_HOST": "theirs"})
    assert mistakes(root, {"CREDIT_CART_DB_HOST": "ours"}) == [
        "CREDIT_CART_DB_HOST: unknown variable; did you mean CREDIT_DB_HOST?"
    ]


def test_what_kubernetes_sets_for_a_service_is_no_mistake(write: Write) -> None:
    links = {
        "CREDIT_SERVICE_HOST": "10.0.0.1",
        "CREDIT_SERVICE_PORT_HTTP": "80",
        "CREDIT_PORT": "tcp://10.0.0.1:80",
        "CREDIT_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    load(write(), {"KUBERNETES_SERVICE_HOST": "10.0.0.2", **links})
    assert len(mistakes(write(), links)) == 4


def test_a_missing_value_says_where_to_set_it(write: Write) -> None:
    class Needy(ServiceSettings):
        shop: str

    with pytest.raises(ConfigError) as caught:
        load_settings(Needy, "credit-service", root=write(), environ={})
    assert str(caught.value) == (
        "credit-service: shop is missing:"
        " set it in config/services/credit-service.yml or as CREDIT_SHOP"
    )


def test_every_value_s_origin_can_be_shown_and_secrets_are_masked(write: Write) -> None:
    root = write(
        shared="database:\n  port: 5432\n",
        service="mail:\n  api_key: k-123\nlimits: {day: 1}\n",
        dotenv="CREDIT_SIGNING_KEY=s-123\n",
    )
    environ = {"CREDIT_DB_PASSWORD": "hunter2", "CREDIT_NATS_SERVERS": "nats://u:p-123@n"}
    shown = origins(root, environ)
    assert shown["database.port"] == ("5432", "config/shared.yml:2")
    assert shown["mail.api_key"] == ("**********", "config/services/credit-service.yml:2")
    assert shown["limits.day"] == ("1", "config/services/credit-service.yml:3")
    assert shown["signing_key"] == ("**********", ".env:1 CREDIT_SIGNING_KEY")
    assert shown["database.password"] == ("**********", "CREDIT_DB_PASSWORD")
    assert shown["nats.servers"] == ("nats://u:**********@n", "CREDIT_NATS_SERVERS")
    assert shown["api.port"] == ("8000", "default")
    settings = load(root, environ)
    for text in (repr(settings), str(settings), repr(shown)):
        assert "123" not in text
        assert "hunter2" not in text


def test_no_error_tells_a_secret(write: Write) -> None:
    class Strict(ServiceSettings):
        pin: SecretStr = Field(default=SecretStr("0000000000"), min_length=10)

    with pytest.raises(ConfigError) as caught:
        load_settings(Strict, "credit-service", root=write(), environ={"CREDIT_PIN": "123"})
    assert "CREDIT_PIN: pin" in str(caught.value)
    assert "123" not in str(caught.value)
    root = write(shared="database:\n  password: [hunter2]\n")
    with pytest.raises(ConfigError) as listed:
        load_settings(Strict, "credit-service", root=root, environ={})
    assert "config/shared.yml:2: database.password" in str(listed.value)
    assert "hunter2" not in str(listed.value)
    with pytest.raises(ValidationError) as refused:
        Strict.model_validate({"pin": "123", "database": {"password": ["hunter2"]}})
    assert "123" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_secret_may_be_mounted_as_a_file(write: Write, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("from file\n")
    root = write(service="database: {password: lower}")
    settings = load(root, {"CREDIT_DB_PASSWORD_FILE": str(secret)})
    assert settings.database.password == SecretStr("from file")
    assert load(root, {"NATS_PASSWORD_FILE": str(secret)}).nats.password == SecretStr("from file")
    assert origins(root, {"CREDIT_DB_PASSWORD_FILE": str(secret)})["database.password"] == (
        "**********",
        "CREDIT_DB_PASSWORD_FILE",
    )


def test_a_key_that_ends_in_file_is_itself(write: Write) -> None:
    settings = load(write(), {"CREDIT_LOGGING__FILE": "/var/log/x", "CREDIT_NATS__CREDS_FILE": "c"})
    assert settings.logging.file == Path("/var/log/x")
    assert settings.nats.creds_file == Path("c")


def test_a_secret_file_that_is_missing_or_contradicted_is_a_mistake(write: Write) -> None:
    assert mistakes(write(), {"CREDIT_DB_PASSWORD_FILE": "/none"}) == [
        "CREDIT_DB_PASSWORD_FILE: cannot read /none: No such file or directory"
    ]
    assert mistakes(write(), {"CREDIT_DB_PASSWORD_FILE": "/none", "CREDIT_DB_PASSWORD": "x"}) == [
        "CREDIT_DB_PASSWORD_FILE: CREDIT_DB_PASSWORD is set as well; which of the two counts?"
    ]


EXTERNAL = "database: {port: 5432, external_port: 6432}\napi: {port: 8000, external_port: 8010}"


@pytest.mark.parametrize(
    ("inside", "service", "environ", "expected"),
    [
        ("yes", EXTERNAL, {}, (5432, 8000)),
        ("no", EXTERNAL, {}, (6432, 8010)),
        ("no", "", {}, (5432, 8000)),
        ("no", EXTERNAL, {"CREDIT_DB_PORT": "7000"}, (7000, 8010)),
        ("no", EXTERNAL, {"CREDIT_DB_PORT": "7000", "CREDIT_DB_PORT_EXTERNAL": "1"}, (1, 8010)),
        ("yes", EXTERNAL, {"CREDIT_DB_PORT_EXTERNAL": "1"}, (5432, 8000)),
    ],
)
def test_outside_a_container_the_external_port_is_the_port_unless_a_higher_layer_sets_one(
    write: Write, inside: str, service: str, environ: dict[str, str], expected: tuple[int, int]
) -> None:
    settings = load(write(service=service), {"GLAM_IN_CONTAINER": inside, **environ})
    assert (settings.database.port, settings.api.port) == expected


def test_the_nearer_dotenv_goes_before_the_root_s(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(dotenv="CREDIT_DB_HOST=root\nCREDIT_DB_NAME=root\n")
    here = root / "services" / "credit"
    here.mkdir(parents=True)
    (here / ".env").write_text("CREDIT_DB_HOST=here\nWEBHOOK_SECRET=theirs\nBARE\n")
    monkeypatch.chdir(here)
    settings = load_settings(CreditSettings, "credit-service", environ={})
    assert (settings.database.host, settings.database.name) == ("here", "root")
    assert origins(root)["database.host"][1] == "services/credit/.env:1 CREDIT_DB_HOST"


def test_a_dotenv_line_that_cannot_be_read_is_a_mistake(write: Write) -> None:
    assert mistakes(write(dotenv="A=1\nB='open\n")) == [".env:2: not NAME=value"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "a: 1\ntrial_credits: 1\ntrial_credits: 2\n",
            ":3: trial_credits is already set in line 2",
        ),
        ("database: {host: a, host: b}", ":1: database.host is already set in line 1"),
        ("database: [1\n", ":2: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("- a\n", ":1: not a mapping of keys to values"),
        ("x: !!python/name:os.system\n", ":1: not YAML: could not determine a constructor"),
        ("x: \x00", ": not YAML: "),
    ],
)
def test_a_file_that_is_not_well_written_is_a_mistake_with_its_line(
    write: Write, text: str, mistake: str
) -> None:
    told = mistakes(write(service=text))
    assert any(f"credit-service.yml{mistake}" in line for line in told), told


def test_anchors_and_merges_are_yaml_s(write: Write) -> None:
    root = write(
        service="limits: &base {day: 1, hour: 1}\n"
        "mail: &mail {host: a}\n"
        "cache: {<<: *base, day: 2}\n"
        "monitoring: &m {<<: *mail, host: b}\n"
        "service: *m\n"
    )
    assert load(root).limits == {"day": 1, "hour": 1}


def test_an_empty_section_sets_nothing(write: Write) -> None:
    root = write(shared="database: {host: db}", service="database:\n")
    assert load(root).database.host == "db"
    assert load(write(shared="", service="mail:\n")).mail == Mail()


def test_settings_are_frozen_and_sections_refuse_unknown_keys() -> None:
    settings = ServiceSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.debug = True  # type: ignore[misc]
    unknown: dict[str, Any] = {"hots": 1}
    with pytest.raises(ValidationError, match="hots"):
        Mail(**unknown)


def test_the_repository_s_own_shared_file_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    assert load_settings(ServiceSettings, "none-service", environ={}) == ServiceSettings()
    servers = {"NATS_SERVERS": "nats://a,nats://b"}
    settings = load_settings(ServiceSettings, "none-service", environ=servers)
    assert settings.nats.servers == ("nats://a", "nats://b")


def test_importing_reads_nothing_and_loads_neither_web_nor_database(tmp_path: Path) -> None:
    code = """
import os, sys
environ, read = type(os.environ), type(os.environ).__getitem__

def refuse(self, name):
    frame = sys._getframe(1)
    while frame.f_globals["__name__"] in {"os", "_collections_abc"}:
        frame = frame.f_back
    assert not frame.f_globals["__name__"].startswith("shared"), name
    return read(self, name)

environ.__getitem__ = refuse
import shared.config
heavy = {"fastapi", "starlette", "sqlalchemy", "nats", "structlog", "prometheus_client", "rich"}
assert heavy.isdisjoint(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_loading_logs_nothing(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        load(write(), {"CREDIT_DB_PASSWORD": "hunter2"})
    assert not caplog.records


def test_a_rule_over_several_keys_is_told_where_it_was_broken(write: Write) -> None:
    root = write(shared="environment: prod\napi:\n  log_level: true\n")
    (told,) = mistakes(root)
    assert told == (
        "config/shared.yml:3: api.log_level: in prod it needs api.operators_token or "
        "api.operators_services, since it must not be open to everybody"
    )
    assert mistakes(root, {"CREDIT_API__LOG_LEVEL": "yes"})[0].startswith("CREDIT_API__LOG_LEVEL: ")


def test_a_secret_that_is_too_short_is_told_in_characters(write: Write) -> None:
    (told,) = mistakes(write(), {"CREDIT_API__OPERATORS_TOKEN": "hunter2"})
    assert told == (
        "CREDIT_API__OPERATORS_TOKEN: api.operators_token: at least 16 characters are needed"
    )
