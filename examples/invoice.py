"""A service of a domain of its own, in one file: `glam up examples/invoice.py`.

    curl -X POST localhost:8000/api/v1/invoices --json '{"number": "2026-1", "amount": "9.90"}'
    glam contracts asyncapi examples/invoice.py
    glam contracts lock examples/invoice.py --lock invoice.lock.json

Nobody declared the domain: stream INVOICE holds `evt.invoice.>` and `cmd.invoice.>` by convention,
and the service makes it, since it publishes the domain's events and handles its commands.
"""

import logging
from decimal import Decimal

from pydantic import BaseModel, Field

from shared.delivery import UnitOfWork
from shared.events import Contract
from shared.service import Service, UnitOfWorkDep


class Invoice(BaseModel):
    """What somebody owes."""

    number: str = Field(min_length=1)
    amount: Decimal = Field(gt=0)


class Paid(BaseModel):
    """An invoice was paid in full."""

    number: str


PAY = Contract("cmd.invoice.pay", Invoice)
PAID = Contract("evt.invoice.paid", Paid)

service = Service("invoice-service", publishes=[PAY, PAID], description="Invoices, paid once.")


@service.router.post("/invoices", status_code=202)
async def create(invoice: Invoice, uow: UnitOfWorkDep) -> Invoice:
    """Take an invoice, to be paid soon."""
    uow.outbox.add(PAY, invoice, key=invoice.number)
    return invoice


@service.handles(PAY)
async def pay(invoice: Invoice, uow: UnitOfWork) -> None:
    """Pay it, and tell everybody: once, however often the command is delivered."""
    uow.outbox.add(PAID, Paid(number=invoice.number), key=invoice.number)


@service.handles(PAID)
async def note(paid: Paid) -> None:
    """Write into the log what was paid."""
    logging.getLogger("invoice").info("invoice %s is paid", paid.number)
