"""`glam migrate`, as typed, on services of the demonstration and one made here."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from shared.cli.app import app
from shared.config import DatabaseSettings
from tests.cli.warm_glam import WarmGlam, warm_glam

pytestmark = pytest.mark.servers

SERVICE = """
from sqlalchemy.orm import Mapped, mapped_column

from shared.database import Base, MerchantMixin, TimestampedMixin
from shared.service import Service


class Member(Base, MerchantMixin, TimestampedMixin):
    __tablename__ = "members"

    id: Mapped[int] = mapped_column(primary_key=True)


service = Service("club-service", migrations="revisions")
"""


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_settings: DatabaseSettings
) -> Path:
    (tmp_path / "club.py").write_text(SERVICE)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "shared.yml").write_text("{}")
    (tmp_path / "revisions").mkdir()
    (tmp_path / "revisions" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    for name in ("host", "port", "name", "user"):
        value = str(getattr(database_settings, name))
        monkeypatch.setenv(f"CLUB_DATABASE__{name.upper()}", value)
    return tmp_path


@pytest.fixture(scope="module")
def glam() -> Iterator[WarmGlam]:
    """In a process of its own each time: models declare themselves once."""
    with warm_glam() as glam:
        yield glam


def test_from_the_models_to_the_schema_and_back(project: Path, glam: WarmGlam) -> None:
    status, said = glam("migrate", "new", "club.py", "members")
    assert (status, "rev_0001_members.py" in said) == (0, True), said
    written = (project / "revisions" / "rev_0001_members.py").read_text()
    for line in (
        "create_delivery_tables(op)",
        "operations.create_updated_at_trigger(op, 'members')",
        "operations.isolate_merchants(op, 'members')",
    ):
        assert line in written
    status, said = glam("migrate", "check", "club.py")
    assert status == 1
    assert "lacks 0001; type: glam migrate up club.py" in said
    assert glam("migrate", "up", "club.py") == (0, "club: 0001\n")
    assert glam("migrate", "check", "club.py") == (
        0,
        "club.py: models, revisions and schema agree\n",
    )
    status, said = glam("migrate", "down", "club.py", "-1", typed="n\n")
    assert status == 1
    assert "DROP TABLE members" in said
    assert glam("migrate", "down", "club.py", "-1", "--yes") == (0, "club: base\n")


@pytest.mark.parametrize("service", ["credit", "notification", "webhook"])
def test_the_services_of_the_demonstration_are_clean(service: str) -> None:
    result: Result = CliRunner().invoke(
        app, ["migrate", "check", f"services.{service}", "--temporary"]
    )
    assert (result.exit_code, result.output) == (
        0,
        f"services.{service}: models, revisions and schema agree\n",
    )


def test_a_squashed_service_leaves_the_same_and_each_outbox_its_own_id() -> None:
    result = CliRunner().invoke(app, ["migrate", "squash", "services.credit"])
    assert result.exit_code == 0, result.output
    assert "replaces = ('0001'" in result.output
    assert "CREATE TABLE ledger_entries" in result.output
    assert "gen_random_uuid()" in result.output


def test_no_database_is_told_with_what_to_type(
    project: Path, monkeypatch: pytest.MonkeyPatch, glam: WarmGlam
) -> None:
    monkeypatch.setenv("CLUB_DATABASE__PORT", "1")
    status, said = glam("migrate", "check", "club.py")
    assert status == 1
    assert "cannot reach PostgreSQL" in said
    assert "--temporary" in said
    assert glam("migrate", "history", "club.py") == (0, "")
