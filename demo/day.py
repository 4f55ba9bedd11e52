"""The day: which shops there are, what they send when, and what must come of it.

What must come of it is computed here from the orders alone, apart from the services. The parts of
the day are sent one after the other, each to its end, so that the result does not depend on the
order in which the messages of a part happen to arrive.
"""

from __future__ import annotations

import secrets
import zlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate
from typing import TYPE_CHECKING
from uuid import NAMESPACE_DNS, UUID, uuid5

from pydantic_core import to_json

from demo.orders import DAY, OrderVersion, spoiled

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

__all__ = ["Credits", "Day", "Delivery", "Forecast", "Shop", "plan"]

# Some shops are busy, some are quiet.
_SHOPS = {
    "blue-hat": 8,
    "red-boot": 6,
    "green-tea": 5,
    "old-books": 4,
    "north-wool": 4,
    "tin-toys": 3,
    "sea-salt": 3,
    "wild-honey": 2,
    "clay-pots": 2,
    "paper-moon": 1,
    "long-spoon": 1,
    "late-bloom": 4,
}
_LATE = "late-bloom"  # its first orders overtake its installation
_THREE_TIMES = 6  # every sixth order is delivered three times
_TURNED_ROUND = 2  # of every second changed order the change comes first


@dataclass(frozen=True, slots=True)
class Shop:
    """A merchant's shop, and the secret it signs with."""

    domain: str
    email: str
    secret: str = field(repr=False)

    @property
    def merchant_id(self) -> UUID:
        """The id that the platform gives it."""
        return uuid5(NAMESPACE_DNS, self.domain)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook of a shop, delivered `copies` times."""

    shop: Shop
    topic: str
    webhook_id: str
    body: bytes
    copies: int = 1
    forged: bool = False


@dataclass(frozen=True, slots=True)
class Credits:
    """The rules of the day, chosen so that many shops fall to the mark, some of them twice."""

    trial: int
    low_balance: int
    renewal: int

    @classmethod
    def for_lines(cls, lines: int) -> Credits:
        """Choose them for shops that use up about `lines` credits in half a day."""
        portion = max(2, round(0.8 * lines))
        low = max(1, round(0.25 * lines))
        return cls(trial=low + portion, low_balance=low, renewal=portion)


@dataclass(slots=True)
class Forecast:
    """What becomes of the credits of one shop, reckoned line by line."""

    rules: Credits
    balance: int
    unpaid: int = 0
    crossings: int = 0
    renewals: int = 0

    def debit(self, lines: int) -> None:
        """Lines come in."""
        self.unpaid += lines
        self._pay()

    def renew(self) -> None:
        """A period is paid."""
        self.renewals += 1
        self.balance += self.rules.renewal
        self._pay()

    def _pay(self) -> None:
        while self.unpaid and self.balance:
            self.unpaid -= 1
            self.balance -= 1
            self.crossings += self.balance == self.rules.low_balance


@dataclass(slots=True)
class Day:
    """Everything that is sent, part by part, and what must come of it.

    Attributes:
        installs: the shops install the app; orders that were cancelled are known to be.
        morning, afternoon: orders.
        noon, evening: subscriptions are renewed.
        forged: signed with a wrong secret.
        malformed: signed rightly, and no JSON.
        lines: every order line that must be debited, as (merchant, order, line).
        morning_debits: how many of them the credits allow before noon.
    """

    shops: list[Shop]
    rules: Credits
    installs: list[Delivery]
    morning: list[Delivery]
    noon: list[Delivery]
    afternoon: list[Delivery]
    evening: list[Delivery]
    forged: Delivery
    malformed: Delivery
    orders: int
    lines: set[tuple[UUID, str, str]]
    morning_debits: int
    forecasts: dict[UUID, Forecast]

    @property
    def deliveries(self) -> list[Delivery]:
        """Everything that is sent and must be taken."""
        return [*self.installs, *self.morning, *self.noon, *self.afternoon, *self.evening]


def plan(versions: Sequence[OrderVersion], chance: random.Random) -> Day:
    """Plan the day of these orders, of which there is at least one."""
    shops = [
        Shop(f"{name}.myshopify.com", f"owner@{name}.example", secrets.token_hex(16))
        for name in _SHOPS
    ]
    orders: dict[str, list[OrderVersion]] = {}
    for version in versions:
        orders.setdefault(version.order_id, []).append(version)
    belongs = {order_id: _shop_of(order_id, shops) for order_id in orders}
    ids = list(orders)
    halves = (ids[: (len(ids) + 1) // 2], ids[(len(ids) + 1) // 2 :])

    charged: list[Counter[UUID]] = [Counter(), Counter()]
    lines = set()
    for half, counted in zip(halves, charged, strict=True):
        for order_id in half:
            merchant_id = belongs[order_id].merchant_id
            for line in _charged(orders[order_id]):
                lines.add((merchant_id, order_id, line))
                counted[merchant_id] += 1

    rules = Credits.for_lines(sum(charged[0].values()) // len(shops))
    forecasts = {shop.merchant_id: Forecast(rules, rules.trial) for shop in shops}
    for merchant_id, forecast in forecasts.items():
        forecast.debit(charged[0][merchant_id])
    morning_debits = sum(charged[0].values()) - sum(f.unpaid for f in forecasts.values())
    noon, evening = [], []
    for shop in shops:
        forecast = forecasts[shop.merchant_id]
        while forecast.balance <= rules.low_balance:
            forecast.renew()
            noon.append(_renewal(shop, forecast.renewals))
        forecast.debit(charged[1][shop.merchant_id])
        while forecast.unpaid:
            forecast.renew()
            evening.append(_renewal(shop, forecast.renewals))

    deliveries = [_deliveries(half, orders, belongs, chance) for half in halves]
    early = [
        _order_delivery(belongs[version.order_id], version, "orders/cancelled", 1)
        for version in versions
        if version.cancelled
    ]
    late = next(shop for shop in shops if shop.domain.startswith(_LATE))
    morning = deliveries[0]
    morning.insert(len(morning) // 3, _install(late))
    return Day(
        shops=shops,
        rules=rules,
        installs=[*(_install(shop) for shop in shops if shop is not late), *early],
        morning=morning,
        noon=noon,
        afternoon=deliveries[1],
        evening=evening,
        forged=Delivery(shops[0], "orders/create", "forged", versions[0].body, forged=True),
        malformed=Delivery(shops[0], "orders/create", "malformed", spoiled(versions[0])),
        orders=len(orders),
        lines=lines,
        morning_debits=morning_debits,
        forecasts=forecasts,
    )


def _shop_of(order_id: str, shops: Sequence[Shop]) -> Shop:
    """Give an order to a shop, the same for all its versions."""
    bounds = list(accumulate(_SHOPS.values()))
    point = zlib.crc32(order_id.encode()) % bounds[-1]
    return next(shop for shop, bound in zip(shops, bounds, strict=True) if point < bound)


def _charged(versions: Iterable[OrderVersion]) -> set[str]:
    """Return the lines that an order must pay for: all it ever had, unless it ends cancelled.

    Its cancellation is known from the morning on. Of versions of the same time the first that
    comes is the valid one, and cancellations come first.
    """
    versions = list(versions)
    newest = max(versions, key=lambda version: (version.updated_at, version.cancelled))
    return set() if newest.cancelled else {line for v in versions for line in v.lines}


def _deliveries(
    order_ids: Iterable[str],
    orders: dict[str, list[OrderVersion]],
    belongs: dict[str, Shop],
    chance: random.Random,
) -> list[Delivery]:
    """Return the deliveries of some orders, mixed, with all the disorder of the real world."""
    timed: list[tuple[float, Delivery]] = []
    for number, order_id in enumerate(order_ids):
        versions = [version for version in orders[order_id] if not version.cancelled]
        versions.sort(key=lambda version: version.updated_at)
        topics = ["orders/create", *["orders/updated"] * (len(versions) - 1)]
        pairs = list(zip(topics, versions, strict=False))
        if number // 4 % _TURNED_ROUND == 0:
            pairs.reverse()
        at = chance.random()
        for topic, version in pairs:
            copies = 3 if number % _THREE_TIMES == 0 else 1
            timed.append((at, _order_delivery(belongs[order_id], version, topic, copies)))
            at += 0.05
    timed.sort(key=lambda pair: pair[0])
    return [delivery for _, delivery in timed]


def _order_delivery(shop: Shop, version: OrderVersion, topic: str, copies: int) -> Delivery:
    # The body is part of the id: a file may hold two versions of the same time.
    fingerprint = zlib.crc32(version.body)
    webhook_id = f"{topic}:{version.order_id}:{version.updated_at.isoformat()}:{fingerprint:08x}"
    return Delivery(shop, topic, webhook_id[:128], version.body, copies)


def _install(shop: Shop) -> Delivery:
    name = shop.domain.partition(".")[0].replace("-", " ").title()
    body = {"name": name, "email": shop.email, "myshopify_domain": shop.domain, "created_at": DAY}
    return Delivery(shop, "app/installed", f"install:{shop.domain}", to_json(body))


def _renewal(shop: Shop, number: int) -> Delivery:
    subscription = {
        "admin_graphql_api_id": f"gid://shopify/AppSubscription/{zlib.crc32(shop.domain.encode())}",
        "name": "basic",
        "status": "ACTIVE",
        "updated_at": DAY + timedelta(days=30 * number),
        "interval": "every_30_days",
    }
    return Delivery(
        shop,
        "app_subscriptions/update",
        f"renewal:{shop.domain}:{number}",
        to_json({"app_subscription": subscription}),
    )
