"""The checker must find what is wrong: each kind of fault is put into a history that holds."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.testing import Entry, History, Outcome, check


def published(number: int, outcome: Outcome = Outcome.OK, key: str = "k") -> list[Entry]:
    event = f"{key}{number}"
    return [
        Entry("publish", Outcome.INVOKE, event, key, number, "producer"),
        Entry("publish", outcome, event, key, number, "producer"),
    ]


def effect(number: int, key: str = "k", by: str = "consumer") -> Entry:
    return Entry("effect", Outcome.OK, f"{key}{number}", key, number, by)


GOOD = [
    *published(1),
    *published(2),
    *published(1, key="other"),
    *published(3),
    effect(1),
    effect(1, "other"),
    effect(2),
    effect(3),
]


def test_a_history_that_holds() -> None:
    verdict = check(GOOD)
    assert verdict.ok
    assert (verdict.acknowledged, verdict.effects, verdict.unknown) == (4, 4, 0)
    assert "lost: 0" in str(verdict)


def test_an_acknowledged_event_without_effect_is_lost() -> None:
    verdict = check([entry for entry in GOOD if entry != effect(2)])
    assert verdict.lost == ["event k2 (k #2) was acknowledged and has no effect by consumer"]
    assert not (verdict.doubled)
    assert not (verdict.misordered)
    assert not (verdict.invented)
    assert not verdict.ok
    assert "event k2" in str(verdict)


def test_an_effect_twice_is_doubled_wherever_it_comes() -> None:
    for place in range(len(GOOD) + 1):
        verdict = check([*GOOD[:place], effect(1), *GOOD[place:]])
        assert verdict.doubled == ["event k1 (k #1) took effect 2 times by consumer"]
        assert not (verdict.lost)
        assert not (verdict.invented)


def test_the_order_of_a_key_is_held_by_each_subscriber() -> None:
    verdict = check([*GOOD[:8], effect(1), effect(3), effect(2), effect(1, "other")])
    assert verdict.misordered == ["event k2 (k #2) took effect by consumer after event k3 (k #3)"]
    assert not (verdict.lost)
    assert not (verdict.doubled)
    assert not (verdict.invented)
    assert check([*GOOD[:8], effect(1), effect(3), effect(2), effect(1, "other")], ordered=False).ok


def test_keys_may_overtake_each_other() -> None:
    assert check([*GOOD[:8], effect(1, "other"), effect(1), effect(2), effect(3)]).ok


def test_an_effect_of_nothing_is_invented() -> None:
    verdict = check([*GOOD, effect(9)])
    assert verdict.invented == ["event k9 (k #9) took effect by consumer, and nobody published it"]


def test_an_effect_of_what_was_undone_is_invented() -> None:
    undone = published(4, Outcome.FAIL)
    assert check([*GOOD, *undone]).ok
    verdict = check([*GOOD, *undone, effect(4)])
    assert verdict.invented == [
        "event k4 (k #4) took effect by consumer, and its transaction was undone"
    ]


@pytest.mark.parametrize("outcome", [Outcome.INFO, Outcome.INVOKE])
def test_what_is_in_doubt_may_have_happened_or_not(outcome: Outcome) -> None:
    doubtful = published(4, outcome)
    assert check([*GOOD, *doubtful]).ok
    assert check([*GOOD, *doubtful, effect(4)]).ok
    assert check([*GOOD, *doubtful]).unknown == 1
    assert check([*GOOD, *doubtful, effect(4), effect(4)]).doubled


def test_every_subscriber_owes_every_event() -> None:
    both = [*GOOD, *(effect(n, by="second") for n in (1, 2)), effect(1, "other", "second")]
    assert [lost for lost in check(both).lost if "second" in lost]
    assert check(GOOD, subscribers=["consumer"]).ok
    assert len(check(GOOD, subscribers=["consumer", "nobody"]).lost) == 4


def test_a_history_without_any_effect_is_all_lost() -> None:
    assert len(check(published(1) + published(2)).lost) == 2


def test_a_word_that_comes_late_decides() -> None:
    late = [*published(4, Outcome.INFO), Entry("publish", Outcome.OK, "k4", "k", 4)]
    assert check([*GOOD, *late]).lost
    assert check([*GOOD, *reversed(late)]).lost


def test_many_counter_examples_are_counted_and_some_shown() -> None:
    text = str(check([entry for n in range(20) for entry in published(n)]))
    assert "lost: 20" in text
    assert "... and 15 more" in text


def test_faults_are_counted_by_kind() -> None:
    faults = [Entry("fault", Outcome.INVOKE, kind) for kind in ("cut", "cut", "kill -9")]
    assert check([*GOOD, *faults, Entry("fault", Outcome.OK, "cut")]).faults == {
        "cut": 2,
        "kill -9": 1,
    }


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_it_finds_exactly_what_is_wrong(
    order: list[int], missing: set[int], twice: set[int]
) -> None:
    events = [entry for n in range(6) for entry in published(n)]
    effects = [effect(n) for n in order if n not in missing]
    again = [effect(n) for n in sorted(twice - missing)]
    verdict = check([*events, *effects, *again])
    assert len(verdict.lost) == len(missing)
    assert len(verdict.doubled) == len(twice - missing)
    kept = [n for n in order if n not in missing]
    assert bool(verdict.misordered) == (kept != sorted(kept))


def test_what_was_written_survives_the_kill_of_its_process(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from shared.testing import History, Outcome;"
        "history = History(Path(sys.argv[1]), by='child');"
        "[history.add('publish', Outcome.OK, str(n), key='k', number=n) for n in range(100)];"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    entries = list(History.read([path]))
    assert [entry.number for entry in entries] == list(range(100))
    assert {entry.by for entry in entries} == {"child"}
    assert all(entry.at > 0 for entry in entries)


def test_a_line_that_was_cut_off_is_passed_over_and_nonsense_is_not(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with History(path, by="me") as history:
        history.add("ack", Outcome.INFO, "e", note="n")
        history.close()
    with path.open("a") as file:
        file.write('{"what": "eff')
    (entry,) = History.read([path])
    assert (entry.what, entry.outcome, entry.event, entry.note) == ("ack", Outcome.INFO, "e", "n")
    path.write_text('{"what": "effect", "outcome": "ok"}\n')
    with pytest.raises(ValueError, match="not an entry"):
        list(History.read([path]))
