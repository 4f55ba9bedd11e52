"""Settings of the credit service."""

from pydantic import Field

from shared.config import Section, ServiceSettings

__all__ = ["CreditRules", "CreditSettings"]


class CreditRules(Section):
    """What credits are given, and when a merchant hears that few are left. Unit: credits."""

    trial: int = Field(default=100, ge=0)
    """Given once, when the account is opened."""
    low_balance: int = Field(default=20, ge=0)
    """A balance that falls to this or below sends a mail."""
    overdraft: int = Field(default=0, ge=0)
    """How far below zero a balance may fall."""


class CreditSettings(ServiceSettings):
    """The chassis' settings and ``credits``."""

    credits: CreditRules = CreditRules()
