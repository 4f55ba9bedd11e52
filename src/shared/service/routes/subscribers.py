"""The routes that show, pause and resume the subscribers of a service."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from fastapi import APIRouter
from pydantic import BaseModel

from shared.api import ApiResponse, success_response
from shared.errors import NotFoundError
from shared.messaging import Circuit, State, Subscriber


class SubscriberState(BaseModel):
    """Where one subscriber stands."""

    durable: str
    subject: str
    stream: str
    state: State
    paused: bool
    circuit: Circuit
    in_flight: int
    lag: int
    last_error: str | None


def create_subscribers_router(subscribers: Callable[[], Sequence[Subscriber]]) -> APIRouter:
    """Make `GET /subscribers` and `POST /subscribers/{durable}/pause` and `/resume`.

    A pause holds for the process that took the request, until it is resumed or ends; what is being
    handled is finished, and other replicas go on. Who may call the routes may stop the work:
    they are for operators, see `shared.api.create_operations_router`.

    Args:
        subscribers: returns those that run now.
    """
    router = APIRouter(tags=["operations"])

    def named(durable: str) -> Subscriber:
        for subscriber in subscribers():
            if subscriber.subscription.durable == durable:
                return subscriber
        raise NotFoundError(
            "No subscriber of this name", resource="subscriber", resource_id=durable
        )

    @router.get("/subscribers")
    async def show() -> ApiResponse[list[SubscriberState]]:
        """List the subscribers of this process."""
        return success_response([_state(subscriber) for subscriber in subscribers()])

    @router.post("/subscribers/{durable}/pause")
    async def pause(durable: str) -> ApiResponse[SubscriberState]:
        """Stop fetching until it is resumed; pausing twice is pausing once."""
        subscriber = named(durable)
        subscriber.pause()
        return success_response(_state(subscriber))

    @router.post("/subscribers/{durable}/resume")
    async def resume(durable: str) -> ApiResponse[SubscriberState]:
        """Fetch again."""
        subscriber = named(durable)
        subscriber.resume()
        return success_response(_state(subscriber))

    return router


def _state(subscriber: Subscriber) -> SubscriberState:
    return SubscriberState(paused=subscriber.paused, **asdict(subscriber.status))
