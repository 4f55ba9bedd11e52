"""Which stream holds a subject: definitions, the convention, and what is refused."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from shared.events import CONVENTION, Contract, StreamDefinition, StreamError, StreamTable
from shared.events.streams import covers, overlap
from tests.events.strategies import PROOF


class Paid(BaseModel):
    amount: int


PAID = Contract("evt.invoice.paid", Paid)
BOOKS = StreamDefinition("BOOKS", ("evt.invoice.>", "cmd.invoice.>"), max_age_seconds=60)

tokens = st.sampled_from(["a", "b", "*"])
filters = st.builds(
    lambda head, last: ".".join([*head, last]),
    st.lists(tokens, max_size=3),
    st.sampled_from(["a", "b", "*", ">"]),
)
subjects = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5).map(".".join)


def matches(pattern: str, subject: str) -> bool:
    """As a NATS server matches: ``*`` is one token, ``>`` is one or more."""
    regex = re.escape(pattern).replace(r"\*", r"[^.]+").replace(">", r".+")
    return re.fullmatch(regex, subject) is not None


@PROOF
@given(filters, filters, subjects)
def test_covers_and_overlap_say_what_a_server_would(one: str, other: str, subject: str) -> None:
    both = matches(one, subject) and matches(other, subject)
    assert overlap(one, other) or not both
    if covers(one, other):
        assert overlap(one, other)
        assert matches(one, subject) or not matches(other, subject)


@pytest.mark.parametrize(
    "subject", ["evt.invoice.paid", "cmd.invoice.>", "evt.invoice.*", "evt.invoice.a.b.c"]
)
def test_a_domain_has_its_stream_by_convention(subject: str) -> None:
    stream = CONVENTION.holding(subject)
    assert stream.name == "INVOICE"
    assert stream.subjects == ("cmd.invoice.>", "evt.invoice.>")
    assert stream.max_age_seconds == 604_800


@PROOF
@given(st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True), st.sampled_from(["cmd", "evt"]))
def test_streams_of_two_domains_never_overlap(domain: str, kind: str) -> None:
    streams = [
        CONVENTION.holding(f"{kind}.{each}.x") for each in (f"x{domain}", f"y{domain}", "invoice")
    ]
    assert len(StreamTable(streams)) == len({stream.name for stream in streams}) == 3
    for one, other in combinations(streams, 2):
        assert not any(overlap(a, b) for a in one.subjects for b in other.subjects)


@pytest.mark.parametrize("domain", ["attempts", "dead_letters", "Dead_Letters_Audit", "obj_x"])
def test_a_domain_whose_stream_would_be_the_chassis_own_is_refused(domain: str) -> None:
    told = f"{domain.upper()} is the chassis' own.* choose another domain than '{domain}'"
    with pytest.raises(StreamError, match=told):
        CONVENTION.holding(f"evt.{domain}.made")


@pytest.mark.parametrize(
    "subject", ["dlq.>", "dlq.mine", "fence.ORDERS.>", "*.orders", ">", "$JS.A"]
)
def test_a_stream_cannot_take_what_is_the_chassis_own(subject: str) -> None:
    with pytest.raises(StreamError, match="takes what is the chassis' own"):
        StreamDefinition("ORDERS", (subject,))


@pytest.mark.parametrize("subject", ["orders.created", "orders.*.created", "evt.*.paid"])
def test_a_subject_without_a_domain_is_told_what_to_declare(subject: str) -> None:
    with pytest.raises(StreamError, match=r"no stream holds .*Contract\(\.\.\., stream='ORDERS'\)"):
        CONVENTION.holding(subject)


def test_definitions_count_before_the_convention() -> None:
    table = StreamTable([BOOKS])
    assert table.holding("evt.invoice.paid") is BOOKS
    assert table.holding("evt.parcel.sent").name == "PARCEL"


def test_two_definitions_of_one_name_are_refused_with_what_differs() -> None:
    other = StreamDefinition("BOOKS", BOOKS.subjects, max_age_seconds=30)
    with pytest.raises(
        StreamError, match="BOOKS is defined twice: max_age_seconds is 60 here and 30"
    ):
        StreamTable([BOOKS, other])
    assert len(StreamTable([BOOKS, BOOKS])) == 1


def test_two_definitions_that_take_one_subject_are_refused_naming_both() -> None:
    other = StreamDefinition("MONEY", ("evt.*.paid",))
    with pytest.raises(StreamError, match=r"BOOKS takes evt.invoice.>, MONEY takes evt.\*.paid"):
        StreamTable([BOOKS, other])


def test_a_definition_of_a_part_of_a_domain_excludes_its_convention() -> None:
    table = StreamTable([StreamDefinition("PAYMENTS", ("evt.invoice.paid",))])
    assert table.holding("evt.invoice.paid").name == "PAYMENTS"
    with pytest.raises(StreamError, match="PAYMENTS and INVOICE overlap"):
        table.holding("evt.invoice.sent")
    with pytest.raises(StreamError, match=r"'evt.invoice.\*' reaches beyond stream PAYMENTS"):
        table.holding("evt.invoice.*")
    narrow = StreamTable([StreamDefinition("INVOICE", ("evt.invoice.paid",))])
    with pytest.raises(StreamError, match="INVOICE is defined without it"):
        narrow.holding("cmd.invoice.send")


def test_a_stream_that_takes_a_subject_twice_is_refused() -> None:
    with pytest.raises(StreamError, match=r"'orders.>' and 'orders.eu.>' overlap"):
        StreamDefinition("ORDERS", ("orders.>", "orders.eu.>"))
    with pytest.raises(StreamError, match="takes no subject"):
        StreamDefinition("ORDERS", ())
    with pytest.raises(StreamError, match="is not the name of a stream"):
        StreamDefinition("OR DERS", ("orders.>",))
    with pytest.raises(StreamError, match="is not a subject"):
        StreamDefinition("ORDERS", ("orders..x",))


def test_subjects_may_be_a_list_and_not_a_text() -> None:
    listed: Any = ["orders.>"]
    assert StreamDefinition("ORDERS", listed) == StreamDefinition("ORDERS", ("orders.>",))
    text: Any = "orders.>"
    with pytest.raises(StreamError, match=r"'orders.>', not a tuple: subjects=\('orders.>',\)"):
        StreamDefinition("ORDERS", text)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"replicas": 9}, "replicas is 9: it must be 1 to 5"),
        ({"replicas": 0}, "replicas is 0: it must be above 0, or None"),
        ({"max_age_seconds": -1}, "max_age_seconds is -1: it must be above 0, or None"),
        ({"retention": "week"}, "'week': it must be one of limits, interest, workqueue"),
        ({"storage": "disk"}, "'disk': it must be one of file, memory"),
    ],
)
def test_a_value_that_no_server_takes_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(StreamError, match=f"stream ORDERS: .*{told}"):
        StreamDefinition("ORDERS", ("orders.>",), **values)


def test_a_contract_names_its_stream() -> None:
    defined = Contract("orders.created", Paid, stream=StreamDefinition("ORDERS", ("orders.>",)))
    assert CONVENTION.of(defined).subjects == ("orders.>",)
    theirs = Contract("orders.*.created", Paid, stream="ORDERS")
    assert CONVENTION.of(theirs).external
    assert CONVENTION.including([theirs, defined]).holding("orders.eu.created").subjects == (
        "orders.>",
    )
    assert StreamTable([BOOKS]).of(PAID) is BOOKS
    assert CONVENTION.of(PAID).name == "INVOICE"


def test_a_contract_whose_stream_does_not_take_its_subject_is_refused() -> None:
    orders = StreamDefinition("ORDERS", ("orders.>",))
    for stream in (orders, "ORDERS"):
        with pytest.raises(StreamError, match=r"names stream ORDERS, which takes orders\.> only"):
            StreamTable([orders]).of(Contract("parcels.sent", Paid, stream=stream))
    with pytest.raises(StreamError, match="BOOKS and ORDERS overlap"):
        StreamTable([BOOKS]).of(Contract("evt.invoice.paid", Paid, stream="ORDERS"))


def test_settings_change_streams_and_add_some() -> None:
    table = StreamTable([BOOKS]).adjusted(
        {
            "BOOKS": {"replicas": 3},
            "parcel": {"max_age_seconds": 9.0},
            "ORDERS": {"subjects": ("orders.>",), "external": True},
        }
    )
    assert (table["BOOKS"].replicas, table["BOOKS"].max_age_seconds) == (3, 60)
    assert table.holding("evt.parcel.sent").max_age_seconds == 9
    assert table.holding("orders.eu.created").external
    with pytest.raises(StreamError, match="BOOKS and MORE overlap"):
        StreamTable([BOOKS]).adjusted({"MORE": {"subjects": ("evt.invoice.late",)}})


@pytest.mark.parametrize(
    "subject", ["evt.order", "evt.order.", "evt.order..x", "evt.a b.c", "", "a..b"]
)
def test_a_contract_wants_a_subject(subject: str) -> None:
    with pytest.raises(ValueError, match="is not a subject"):
        Contract(subject, Paid)


def test_a_wildcard_in_the_place_of_the_domain_is_told_where_it_may_stand() -> None:
    with pytest.raises(StreamError, match=r"'evt\.\*\.paid' .*'\*' and '>' after the domain"):
        Contract("evt.*.paid", Paid)


def test_a_payload_is_a_pydantic_model() -> None:
    payload: Any = dict
    with pytest.raises(TypeError, match="payload is <class 'dict'>: it must be a pydantic model"):
        Contract("evt.invoice.paid", payload)


def test_a_contract_may_be_a_filter_and_have_a_durable() -> None:
    assert PAID.is_literal
    assert not Contract("orders.*.created", Paid).is_literal
    assert Contract("orders.>", Paid, durable="projection").durable == "projection"
    with pytest.raises(ValueError, match="'a b' is not the name of a durable consumer"):
        Contract("orders.>", Paid, durable="a b")
