"""Amounts of money: exact, and of one currency."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Self

from pydantic_core import core_schema
from sqlalchemy import Numeric, String
from sqlalchemy.orm import Composite, composite, mapped_column

from shared.errors import ValidationError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler


# ISO 4217, table A.1, as of 2026-01-01; the number of decimals where it is not 2.
_CURRENCIES = frozenset(  # text, since a list of them fills two screens
    """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD
    CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP
    GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR
    KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN
    MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD
    SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX
    USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG BGN
    """.split()  # noqa: SIM905
)
_DECIMALS = {
    currency: decimals
    for decimals, currencies in {
        0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
        3: "BHD IQD JOD KWD LYD OMR TND",
        4: "CLF UYW",
    }.items()
    for currency in currencies.split()
}


@dataclass(frozen=True, slots=True)
class Money:
    """So much of a currency, to its smallest unit and no further.

    ``Money("12.50", "EUR") + Money("7.50", "EUR")``. Amounts of two currencies neither add up nor
    compare; ``==`` says that they differ. `times` rounds and `split` loses nothing, so no cent
    appears or vanishes unseen. In JSON it is ``{"amount": "12.50", "currency": "EUR"}``; in a table
    two columns: `money_column`.

    >>> Money("12.50", "EUR") + Money("7.50", "EUR")
    Money(amount=Decimal('20.00'), currency='EUR')
    >>> [str(part) for part in Money("10.00", "EUR").split(1, 1, 1)]
    ['3.34 EUR', '3.33 EUR', '3.33 EUR']
    >>> Money("0.005", "EUR")
    ValidationError: EUR has 2 decimals: round first, with Money.rounded()

    Args:
        amount: a Decimal, an int, or text such as ``"12.50"``; never a float, which is not exact.
        currency: ISO 4217's letters, such as ``EUR``.

    Raises:
        ValidationError: no such currency, or the amount has parts of its smallest unit.
    """

    amount: Decimal
    currency: str

    def __init__(self, amount: Decimal | int | str, currency: str) -> None:
        if currency not in _CURRENCIES:
            raise ValidationError(
                f"{currency!r} is not an ISO 4217 currency", field="currency", value=currency
            )
        exact = _decimal(amount).quantize(_unit(currency), rounding=ROUND_DOWN)
        if exact != _decimal(amount):
            raise ValidationError(
                f"{currency} has {_DECIMALS.get(currency, 2)} decimals: round first, with "
                "Money.rounded()",
                field="amount",
                value=str(amount),
            )
        object.__setattr__(self, "amount", exact + 0)  # no negative zero
        object.__setattr__(self, "currency", currency)

    @classmethod
    def rounded(
        cls, amount: Decimal | int | str, currency: str, rounding: str = ROUND_HALF_EVEN
    ) -> Self:
        """Round to the smallest unit, halves to the even one unless told otherwise."""
        if currency in _CURRENCIES:
            amount = _decimal(amount).quantize(_unit(currency), rounding=rounding)
        return cls(amount, currency)

    @classmethod
    def from_minor_units(cls, units: int, currency: str) -> Self:
        """Return so many of the smallest units: 1250 is 12.50 EUR, or 1250 JPY."""
        return cls(Decimal(units).scaleb(-_DECIMALS.get(currency, 2)), currency)

    @property
    def minor_units(self) -> int:
        """The amount in the currency's smallest unit."""
        return int(self.amount.scaleb(_DECIMALS.get(self.currency, 2)))

    def times(self, factor: Decimal | int | str, rounding: str = ROUND_HALF_EVEN) -> Money:
        """Multiply and round to the smallest unit."""
        return Money.rounded(self.amount * _decimal(factor), self.currency, rounding)

    def split(self, *weights: int) -> list[Money]:
        """Share out in the proportion of the weights; the parts add up to the whole.

        What does not divide goes to the first ones, a smallest unit each.

        Raises:
            ValueError: no weights, a negative one, or only zeros.
        """
        total = sum(weights)
        if total <= 0 or min(weights) < 0:
            raise ValueError(f"weights must not be negative, and one must be positive: {weights}")
        units = abs(self.minor_units)
        shares = [units * weight // total for weight in weights]
        for n, weight in enumerate(weights):
            if weight and sum(shares) < units:
                shares[n] += 1
        sign = -1 if self.amount < 0 else 1
        return [Money.from_minor_units(sign * share, self.currency) for share in shares]

    def __add__(self, other: Money | int) -> Money:
        if other == 0 and isinstance(other, int):
            return self  # where sum() begins
        return Money(self.amount + self._of_same(other), self.currency)

    __radd__ = __add__

    def __sub__(self, other: Money) -> Money:
        return Money(self.amount - self._of_same(other), self.currency)

    def __mul__(self, count: int) -> Money:
        if not isinstance(count, int) or isinstance(count, bool):
            return NotImplemented
        return Money(self.amount * count, self.currency)

    __rmul__ = __mul__

    def __neg__(self) -> Money:
        return Money(-self.amount, self.currency)

    def __abs__(self) -> Money:
        return Money(abs(self.amount), self.currency)

    def __bool__(self) -> bool:
        return bool(self.amount)

    def __lt__(self, other: Money) -> bool:
        return self.amount < self._of_same(other)

    def __le__(self, other: Money) -> bool:
        return self.amount <= self._of_same(other)

    def __gt__(self, other: Money) -> bool:
        return self.amount > self._of_same(other)

    def __ge__(self, other: Money) -> bool:
        return self.amount >= self._of_same(other)

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"

    def __composite_values__(self) -> tuple[Decimal, str]:
        """Return the values of the two columns, as SQLAlchemy asks for them."""
        return self.amount, self.currency

    def _of_same(self, other: object) -> Decimal:
        if not isinstance(other, Money):
            raise TypeError(f"{other!r} is not Money: {self} goes with Money alone")
        if other.currency != self.currency:
            raise ValidationError(
                f"{self.currency} and {other.currency} do not mix: convert one first",
                field="currency",
                value=other.currency,
            )
        return other.amount

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        amount = core_schema.str_schema(pattern=r"^-?\d+(\.\d+)?$")
        exact = core_schema.union_schema(
            [
                core_schema.is_instance_schema(Decimal),
                core_schema.int_schema(strict=True),
                amount,
            ]
        )
        python = core_schema.chain_schema(
            [_fields(exact), core_schema.no_info_plain_validator_function(_read)]
        )
        json = core_schema.chain_schema(
            [_fields(amount), core_schema.no_info_plain_validator_function(_read)]
        )
        return core_schema.json_or_python_schema(
            json_schema=json,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(Money), python]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                _write, return_schema=_fields(core_schema.str_schema())
            ),
        )


def money_column(name: str, *, nullable: bool = False, digits: int = 19) -> Composite[Any]:
    """Return an attribute of two columns, ``<name>_amount`` and ``<name>_currency``.

    ``price: Mapped[Money] = money_column("price")``. Filters and orders by the two columns; two
    attributes of these names are there as well. With ``nullable`` both are NULL or none is.

    >>> class Article(Base, UUIDv7Mixin):
    ...     __tablename__ = "articles"
    ...     price: Mapped[Money] = money_column("price")
    >>> [column.name for column in Article.__table__.columns]
    ['id', 'price_amount', 'price_currency']

    Args:
        name: of the attribute.
        nullable: whether there may be none: ``Mapped[Money | None]``.
        digits: of the amount at most, four of them behind the point.
    """
    return composite(
        _from_columns,
        mapped_column(f"{name}_amount", Numeric(digits, 4), nullable=nullable),
        mapped_column(f"{name}_currency", String(3), nullable=nullable),
    )


def _from_columns(amount: Decimal | None, currency: str | None) -> Money | None:
    return None if amount is None or currency is None else Money(amount, currency)


def _fields(amount: core_schema.CoreSchema) -> core_schema.CoreSchema:
    return core_schema.typed_dict_schema(
        {
            "amount": core_schema.typed_dict_field(amount),
            "currency": core_schema.typed_dict_field(core_schema.str_schema(pattern="^[A-Z]{3}$")),
        },
        extra_behavior="forbid",
    )


def _read(fields: dict[str, Any]) -> Money:
    try:
        return Money(fields["amount"], fields["currency"])
    except ValidationError as error:
        raise ValueError(error.message) from error


def _write(money: Money) -> dict[str, str]:
    return {"amount": str(money.amount), "currency": money.currency}


def _unit(currency: str) -> Decimal:
    return Decimal(1).scaleb(-_DECIMALS.get(currency, 2))


def _decimal(amount: object) -> Decimal:
    if isinstance(amount, bool) or not isinstance(amount, Decimal | int | str):
        raise ValidationError(
            f"{amount!r} is a {type(amount).__name__}: an amount is a Decimal, an int or text",
            field="amount",
        )
    try:
        exact = Decimal(amount)
    except InvalidOperation:
        exact = Decimal("NaN")
    if not exact.is_finite():
        raise ValidationError(f"{amount!r} is not an amount", field="amount", value=str(amount))
    return exact
