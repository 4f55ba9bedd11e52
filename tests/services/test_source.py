"""The services say what they want of the database to a repository, and nothing to a session."""

import ast
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[2] / "services"
SOURCES = sorted(
    path
    for path in SERVICES.rglob("*.py")
    if path.name != "models.py" and path.parent.name != "migrations"
)
EXPRESSIONS = {"func", "true"}
"""What conditions and changes may need of SQLAlchemy."""
OF_A_SESSION = {"connection", "execute", "scalar", "scalars", "session", "session_factory"}


def session_code(source: str) -> list[str]:
    """Return what in a module speaks to SQLAlchemy's session, or writes its statements."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] == "sqlalchemy":
                found += [
                    f"{module}.{name.name}" for name in node.names if name.name not in EXPRESSIONS
                ]
            case ast.Import():
                found += [name.name for name in node.names if name.name.startswith("sqlalchemy")]
            case ast.Attribute(attr=name) if name in OF_A_SESSION:
                found.append(f".{name}")
            case _:
                pass
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SERVICES)))
def test_no_service_speaks_to_a_session(path: Path) -> None:
    assert session_code(path.read_text()) == []


def test_what_speaks_to_a_session_is_found() -> None:
    assert len(SOURCES) > 10
    assert session_code("from sqlalchemy import func, select\nawait uow.session.scalar(x)") == [
        "sqlalchemy.select",
        ".scalar",
        ".session",
    ]
