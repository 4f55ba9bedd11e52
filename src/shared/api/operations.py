"""The routes for those who run a service: what it is, and what it logs."""

from collections.abc import Sequence

from fastapi import APIRouter

from shared.api.info import create_info_router
from shared.api.log_level import create_log_level_router
from shared.config import ServiceSettings, Setting

__all__ = ["create_operations_router"]


def create_operations_router(
    settings: ServiceSettings,
    *,
    service: str,
    version: str,
    configuration: Sequence[Setting] = (),
) -> APIRouter:
    """Make ``/info`` and ``/log-level``, each if the settings want it. Include it under the prefix.

    Where ``api.info`` or ``api.log_level`` is not set, the route is there in every environment but
    prod: it tells of hosts and versions, or changes what is logged, and asks nobody who they are.

    Args:
        settings: the service's settings.
        service: its name.
        version: its version.
        configuration: what ``/info`` shows of the settings; see `create_info_router`.
    """

    def wanted(setting: bool | None) -> bool:
        return settings.environment != "prod" if setting is None else setting

    router = APIRouter()
    if wanted(settings.api.info):
        router.include_router(
            create_info_router(service, version=version, configuration=configuration)
        )
    if wanted(settings.api.log_level):
        router.include_router(create_log_level_router())
    return router
