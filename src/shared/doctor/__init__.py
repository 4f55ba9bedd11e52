"""The doctor: live streams, consumers, server and outbox against what services declare.

It reads and never changes anything. Each finding says what is, why it matters and what to do;
`CODES` lists them all.
"""

from shared.doctor.examination import examine
from shared.doctor.finding import CODES, Finding, Severity
from shared.doctor.releases import KNOWN_LOSSES, KnownLoss

__all__ = ["CODES", "KNOWN_LOSSES", "Finding", "KnownLoss", "Severity", "examine"]
