"""The assembler: declare a service, run it.

This floor alone knows every concrete part. A service is one short module: settings, routes,
handlers, providers; start, health, drain, SIGTERM and telemetry come with it.
"""

from shared.config import ServiceSettings
from shared.service.application import Application
from shared.service.dependencies import (
    Provided,
    ReadOnlyUnitOfWorkDep,
    UnitOfWorkDep,
    UnitOfWorkFactoryDep,
)
from shared.service.errors import DeclarationError
from shared.service.idempotency import IdempotencyKeyRequired, IdempotentRoute
from shared.service.providers import Provider, Provisions
from shared.service.service import Service

__all__ = [
    "Application",
    "DeclarationError",
    "IdempotencyKeyRequired",
    "IdempotentRoute",
    "Provided",
    "Provider",
    "Provisions",
    "ReadOnlyUnitOfWorkDep",
    "Service",
    "ServiceSettings",
    "UnitOfWorkDep",
    "UnitOfWorkFactoryDep",
]
