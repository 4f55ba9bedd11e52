"""Large bodies left at the object store: the message carries a claim, and the reader collects."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from hashlib import sha256
from secrets import token_hex
from typing import TYPE_CHECKING

from nats.js.api import ObjectStoreConfig, StorageType
from nats.js.errors import BucketNotFoundError, DigestMismatchError, NotFoundError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import MessageBusError
from shared.messaging.connection.errors import bus_errors

if TYPE_CHECKING:
    from nats.js.object_store import ObjectStore

    from shared.messaging.connection.connection import Connection
    from shared.messaging.consuming.delivery import Delivery
    from shared.messaging.publishing.wire import OutgoingMessage

BUCKET = "GLAM_CLAIMS"

# Longer than a message lies in its stream (a week) and in the dead letters (30 days) after that:
# what can still be delivered or replayed can still be collected.
MAX_AGE_SECONDS = 40 * 24 * 60 * 60

CLAIM = "Glam-Claim"  # the header that tells a claim; its value is the form's version

_FORM = "1"
_COLLECT_SECONDS = 30.0


class ClaimLostError(LookupError):
    """What a message's claim stands for is missing, or is not what was stored there.

    Worth another attempt, as any failure of a handler; after the last one the message, claim and
    all, lies with the dead letters.
    """


class Claim(BaseModel):
    """The body of a message whose own body lies in the object store."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    object: str
    size: int = Field(ge=0)
    sha256: str


class ClaimCheck:
    """Leaves large bodies at the JetStream object store.

    Args:
        bus: whose JetStream keeps them, in the bucket GLAM_CLAIMS, for 40 days.
        above_bytes: a body larger than this is left there.
    """

    def __init__(self, bus: Connection, *, above_bytes: int) -> None:
        self._bus = bus
        self._above_bytes = above_bytes

    async def leave(self, message: OutgoingMessage) -> OutgoingMessage:
        """Return the message as it is to be sent: itself, or with a claim for its body.

        Subject, id and headers stay. Publishing it again leaves the body again; what is then not
        claimed by any message goes with its age.

        Raises:
            MessageBusError: The object store does not take it.
        """
        body = message.body
        if len(body) <= self._above_bytes:
            return message
        claim = Claim(
            bucket=BUCKET, object=token_hex(16), size=len(body), sha256=sha256(body).hexdigest()
        )
        with bus_errors("leave body", subject=message.subject):
            store = await self._store()
            await store.put(claim.object, body)
        return replace(
            message,
            body=claim.model_dump_json().encode(),
            headers={**message.headers, CLAIM: _FORM},
        )

    async def _store(self) -> ObjectStore:
        js = self._bus.js
        try:
            return await js.object_store(BUCKET)
        except BucketNotFoundError:
            return await js.create_object_store(
                BUCKET,
                ObjectStoreConfig(
                    description="bodies too large for their messages",
                    ttl=MAX_AGE_SECONDS,
                    storage=StorageType.FILE,
                    replicas=self._bus.settings.replicas,
                ),
            )


async def resolve(bus: Connection, delivery: Delivery) -> Delivery:
    """Return the delivery with its own body, wherever that lies.

    Raises:
        ClaimLostError: The object is missing, or is not what was stored.
        MessageBusError: JetStream does not answer.
    """
    if CLAIM not in delivery.headers:
        return delivery
    try:
        claim = Claim.model_validate_json(delivery.body)
    except ValidationError as error:
        raise ClaimLostError(f"the body of {delivery.subject} is not a claim check") from error
    what = f"the body of {delivery.subject}, {claim.size} bytes in {claim.bucket}/{claim.object},"
    try:
        with bus_errors("collect body", subject=delivery.subject):
            # A bucket is never made here: who reads must not hide that it is gone.
            store = await bus.js.object_store(claim.bucket)
            await store.get_info(claim.object)
            async with asyncio.timeout(_COLLECT_SECONDS):
                body = (await store.get(claim.object)).data or b""
    except MessageBusError as error:
        cause = error.__cause__
        # Chunks that are missing are waited for in vain; an outage is an error of the client's.
        missing = type(cause) is TimeoutError
        if missing or isinstance(cause, (NotFoundError, DigestMismatchError)):
            raise ClaimLostError(f"{what} is not there") from error
        raise
    if len(body) != claim.size or sha256(body).hexdigest() != claim.sha256:
        raise ClaimLostError(f"{what} is not what was stored")
    headers = {name: value for name, value in delivery.headers.items() if name != CLAIM}
    return delivery.replace(body=body, headers=headers)
