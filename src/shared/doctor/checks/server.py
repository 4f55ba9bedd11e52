"""The NATS server: what it is able to, what room it has, and when it writes to disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.doctor.checked_service import duration
from shared.doctor.finding import Findings, Severity
from shared.doctor.releases import judge_release

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.doctor.checked_service import CheckedService
    from shared.messaging import Inspection, MonitoringFacts


_MONITORING_PORT = 8222
_DEFAULT_PAYLOAD = 1024 * 1024

# Room for headers beside the body, as `Publisher` leaves it for a dead letter's.
_HEADROOM = 8 * 1024

_SKEW_SECONDS, _BAD_SKEW_SECONDS = 1.0, 10.0
_USED, _NEARLY_ALL = 0.75, 0.9

_ALWAYS = "nats-server's configuration: jetstream { sync_interval: always }"


async def examine_server(
    inspection: Inspection, under_check: Sequence[CheckedService], *, monitoring: str | None
) -> Findings:
    """Judge the server that these services share.

    Raises:
        MessageBusError: JetStream does not answer.
    """
    facts = await inspection.server()
    found = judge_release(facts.version)
    for checked in under_check:
        claim = checked.settings.nats.claim_check_bytes
        if claim is not None and claim > facts.max_payload - _HEADROOM:
            found.error(
                "max-payload",
                f"bodies up to {claim} bytes are sent as they are, and the server takes "
                f"{facts.max_payload} with headers",
                f"nats.claim_check_bytes: {max(facts.max_payload - _HEADROOM, 1)}",
                about=checked.name,
            )
        elif claim is None and facts.max_payload < _DEFAULT_PAYLOAD:
            found.warning(
                "max-payload",
                f"the server takes {facts.max_payload} bytes, less than its default of "
                f"{_DEFAULT_PAYLOAD}, and larger bodies have no other way",
                f"nats.claim_check_bytes: {max(facts.max_payload // 2, 1)}",
                about=checked.name,
            )
    monitored = await _monitoring(inspection, monitoring)
    storage, most = facts.storage, facts.max_storage
    if most is None and monitored is not None:
        storage, most = monitored.storage, monitored.max_storage
    if most and storage >= _USED * most:
        found.add(
            "storage-left",
            Severity.ERROR if storage >= _NEARLY_ALL * most else Severity.WARNING,
            f"{storage} of {most} bytes of JetStream's storage are used",
            "raise max_file_store (or the account's max_file), or purge: nats stream report",
        )
    _sync(monitored, under_check, found)
    return found


def judge_clock(found: Findings, ahead_seconds: float, accuracy_seconds: float) -> None:
    """Judge a clock against ours."""
    sure = abs(ahead_seconds) - accuracy_seconds
    if sure >= _SKEW_SECONDS:
        way = "ahead of" if ahead_seconds > 0 else "behind"
        found.add(
            "clock-skew",
            Severity.ERROR if sure >= _BAD_SKEW_SECONDS else Severity.WARNING,
            f"its clock is {abs(ahead_seconds):.1f} s {way} the one of this machine",
            "chronyc tracking (on both machines), then let both follow the same time servers",
        )


async def _monitoring(inspection: Inspection, address: str | None) -> MonitoringFacts | None:
    if address is None:
        host = inspection.host()
        if host is None:
            return None
        address = f"http://{f'[{host}]' if ':' in host else host}:{_MONITORING_PORT}"
    return await inspection.monitoring(address)


def _sync(
    facts: MonitoringFacts | None, under_check: Sequence[CheckedService], found: Findings
) -> None:
    single = [p for p in under_check if p.settings.nats.replicas == 1]
    if facts is None:
        found.note(
            "sync-interval",
            "unknown: only the monitoring endpoint tells it, and it was not to be reached "
            "(the default is 2 min)",
            "glam doctor --monitoring http://HOST:8222, or: grep sync_interval nats.conf",
        )
        return
    if facts.sync_seconds == 0:
        return
    every = duration(facts.sync_seconds)
    if single:
        severity = max((p.grave(Severity.WARNING) for p in single), key=list(Severity).index)
        what = f"synced every {every}, and {_names(single)} keep one copy: that is all there is"
    else:
        severity = Severity.NOTE
        what = f"synced every {every}: servers that lose power together lose what they had"
    found.add("sync-interval", severity, what, _ALWAYS)


def _names(under_check: Sequence[CheckedService]) -> str:
    return ", ".join(checked.name for checked in under_check)
