"""What is produced and consumed: numbers, counted for each key."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel

from shared.config import ServiceSettings
from shared.events import Contract


class Counted(BaseModel):
    """The number that a key has reached."""

    key: str
    number: int


# A stream keeps the last 100,000 messages of a subject; so there are several.
CONTRACTS = tuple(Contract(f"evt.credit.soak{lane}", Counted) for lane in range(4))
STREAM = "CREDIT"

KEYS = tuple(f"key-{number:02}" for number in range(64))

# What the services need beside their outbox and inbox.
TABLES = """\
CREATE SCHEMA IF NOT EXISTS producer;
CREATE SCHEMA IF NOT EXISTS consumer;
CREATE TABLE producer.counters (key text PRIMARY KEY, number bigint NOT NULL DEFAULT 0);
CREATE TABLE consumer.effects (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  event text NOT NULL, key text NOT NULL, number bigint NOT NULL, applied_by text NOT NULL);
"""


def contract_of(key: str) -> Contract[Counted]:
    """The contract whose subject carries the events of a key: always the same."""
    return CONTRACTS[KEYS.index(key) % len(CONTRACTS)]


def tell_ready() -> None:
    """Tell the deployment that this process has started."""
    Path(os.environ["SOAK_READY"]).write_text(str(os.getpid()))


def settings() -> ServiceSettings:
    """The settings that the deployment gave this process."""
    return ServiceSettings.model_validate_json(os.environ["SOAK_SETTINGS"])
