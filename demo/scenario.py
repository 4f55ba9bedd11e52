"""The scenario: the day is sent part by part, a service dies in it, and the end is checked."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from demo import checks
from demo.deployment import Deployment
from demo.records import Frozen, Records
from demo.report import show_addresses, show_checks, show_trace
from demo.sender import Sender
from shared.dev.trace_tree import read_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from uuid import UUID

    from rich.console import Console

    from demo.checks import Check
    from demo.day import Day, Delivery
    from shared.dev import ServiceProcess

__all__ = ["Scenario"]

# The kill comes when about half of the morning's work is done; it is looked for in this range.
_EARLIEST, _LATEST = 0.35, 0.8
_SETTLE_SECONDS = 120.0


class Scenario:
    """Runs one day on one deployment.

    Args:
        day: what is sent, and what must come of it.
        console: where progress and checks are shown.
        folder: for data and logs.
        keep: leave everything running at the end, until cancelled.
    """

    def __init__(self, day: Day, console: Console, folder: Path, *, keep: bool) -> None:
        self._day = day
        self._console = console
        self._folder = folder
        self._keep = keep
        self._began = time.monotonic()
        self.checks: list[Check] = []

    @property
    def ok(self) -> bool:
        """Whether the day came to its end and every check holds."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    async def run(self) -> None:
        """Run the day, and check what came of it.

        Raises:
            ExceptionGroup: of `shared.dev.ProcessError`, when a server or service does not start.
        """
        self._began = time.monotonic()
        self._tell("starting NATS, PostgreSQL, a mailbox and three services")
        async with AsyncExitStack() as stack:
            deployment = await stack.enter_async_context(Deployment(self._folder, self._day))
            show_addresses(self._console, deployment)
            records = await stack.enter_async_context(await Records.open(deployment))
            sender = await stack.enter_async_context(Sender(deployment.address("webhook")))
            frozen, poison = await self._run(deployment, records, sender)
            await self._check(deployment, records, sender, frozen, poison)
            if self._keep:
                self._tell(f"everything is still running, data in {self._folder}; Ctrl-C stops it")
                await asyncio.Event().wait()

    async def _run(
        self, deployment: Deployment, records: Records, sender: Sender
    ) -> tuple[Frozen | None, bytes]:
        day = self._day
        self._tell(f"{len(day.shops)} shops; {len(day.shops) - 1} install the app")
        await self._send(sender, "installation", day.installs)
        await self._settle(records)

        self._tell(
            "morning: orders come in, some three times, some in the wrong order, some before "
            "their shop; a forged, a malformed and a poisoned one among them"
        )
        morning = asyncio.create_task(self._send(sender, "morning", day.morning))
        try:
            poison = await records.poison()
            await sender.send([day.forged, day.malformed])
            frozen = await self._kill(deployment.services["credit"], records, morning)
            if frozen is not None:
                await deployment.services["credit"].start()
                self._tell("credit service: started again")
            await morning
        finally:
            morning.cancel()
        if frozen is not None:
            self._tell(
                f"waiting for the {frozen.unacknowledged} events that died with it: the server "
                "gives them out again when their time to be acknowledged is over"
            )
        await self._settle(records)

        self._tell(f"noon: {len(day.noon)} subscriptions renew")
        await self._send(sender, "noon", day.noon)
        await self._settle(records)
        self._tell("afternoon: more orders")
        await self._send(sender, "afternoon", day.afternoon)
        await self._settle(records)
        self._tell(f"evening: {len(day.evening)} subscriptions renew, waiting lines are paid")
        await self._send(sender, "evening", day.evening)
        await self._settle(records)
        return frozen, poison

    async def _kill(
        self, credit: ServiceProcess, records: Records, morning: asyncio.Task[None]
    ) -> Frozen | None:
        """Kill the credit service in the middle of work; return what it was doing, if anything.

        It is frozen (SIGSTOP) again and again, looked at, and killed (SIGKILL) in that very state
        when about half of the work is done and it is at work on more.
        """
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                return await self._kill_at_work(credit, records, morning)
        except TimeoutError:
            await credit.resume()
            return None

    async def _kill_at_work(
        self, credit: ServiceProcess, records: Records, morning: asyncio.Task[None]
    ) -> Frozen | None:
        expected = self._day.morning_debits
        while await records.debits() < int(_EARLIEST * expected):
            if morning.done():
                await morning  # raises what it failed of
            await asyncio.sleep(0.002)
        while True:
            await credit.pause()
            frozen = await records.look_at_credit()
            late = frozen.debits > _LATEST * expected
            at_work = frozen.unacknowledged > 0 and frozen.debits < expected
            if at_work and (frozen.transactions or late):
                await credit.kill()
                self._tell(
                    f"credit service: SIGKILL after {frozen.debits:,} of {expected:,} debits, with "
                    f"{frozen.transactions} transactions open and {frozen.unacknowledged} events "
                    "not acknowledged"
                )
                return frozen
            await credit.resume()
            if frozen.debits >= expected:
                return None
            if morning.done():
                await morning  # raises what it failed of
            await asyncio.sleep(0.005)

    async def _send(self, sender: Sender, what: str, deliveries: list[Delivery]) -> None:
        total = sum(delivery.copies for delivery in deliveries)
        with self._progress(what, total) as advance:
            await sender.send(deliveries, advance)

    async def _settle(self, records: Records) -> None:
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                await records.settled()
        except TimeoutError:
            # The checks will say what is missing.
            self._tell(f"not everything came to its end within {_SETTLE_SECONDS:g} s")

    async def _check(
        self,
        deployment: Deployment,
        records: Records,
        sender: Sender,
        frozen: Frozen | None,
        poison: bytes,
    ) -> None:
        day = self._day
        ledger, kept = await records.ledger(), await records.kept()
        story = checks.story_of(read_spans(deployment.log_files))
        self.checks = [
            checks.each_line_is_debited_once(day.lines, ledger),
            checks.ledger_sums_to_balance(ledger, await records.accounts(), day.forecasts),
            checks.one_mail_for_each_crossing(
                ledger, day.rules.low_balance, day.forecasts, self._mails(deployment)
            ),
            checks.answers_are_right(day.deliveries, sender.answers),
            checks.forged_is_refused(day.forged, sender.answers, kept),
            checks.malformed_is_refused_and_kept(day.malformed, sender.answers, kept),
            checks.poison_is_a_dead_letter(poison, await records.dead_letters()),
            checks.killed_in_the_middle(frozen, day.morning_debits),
            checks.trace_leads_to_the_mail(story),
        ]
        if story:
            show_trace(self._console, story)
        show_checks(self._console, self.checks, time.monotonic() - self._began)

    def _mails(self, deployment: Deployment) -> list[tuple[UUID | None, str]]:
        shops = {shop.email: shop.merchant_id for shop in self._day.shops} | {
            f"postmaster@{shop.domain}": shop.merchant_id for shop in self._day.shops
        }
        return [
            (shops.get(mail.recipients[0]), str(mail.message["Message-ID"]))
            for mail in deployment.mailbox.messages
        ]

    def _tell(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        self._console.print(f"[dim]{seconds:5.1f} s[/]  {text}", highlight=False)

    @contextmanager
    def _progress(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a bar while webhooks are sent; nothing where there is no terminal."""
        progress = Progress(
            TextColumn("         {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with progress:
            task = progress.add_task(f"{what}: webhooks", total=total)
            yield lambda: progress.advance(task)
