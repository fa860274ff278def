"""The accounts: what is counted as stored, delivered, receipted, late, doubled; and from when latency counts."""

from bench.ledger import Lane, Ledger

PAIR = Lane(0, "d1", 1)


def sent(ledger: Ledger, count: int, lane: Lane = PAIR, at: float = 10.0) -> None:
    for n in range(count):
        ledger.on_sent(lane, at + n, at + n)


def test_latency_counts_from_the_intended_time_not_from_the_sending() -> None:
    ledger = Ledger()
    ledger.on_sent(PAIR, intended=1.0, now=1.5)
    ledger.on_stored(0, seq=1, now=1.75)
    ledger.on_given(1, "d1", 1, 0, now=2.0)
    ledger.on_receipt(0, "d1", 1, now=3.0)
    step = ledger.step(0, rate=1, seconds=1)
    assert (step.stored_latency.p50, step.delivered_latency.p50, step.receipt_latency.p50) == (750, 1000, 2000)
    assert step.lateness.max == 500


def test_stored_in_time_counts_only_the_span_itself() -> None:
    ledger = Ledger()
    sent(ledger, 2)
    ledger.on_stored(0, 1, now=10.5)
    ledger.on_stored(1, 2, now=13.0)
    step = ledger.step(0, rate=1, seconds=2)
    assert (step.stored, step.stored_rate) == (2, 0.5)


def test_what_is_given_in_order_with_own_messages_between_is_no_fault() -> None:
    ledger = Ledger()
    sent(ledger, 3)
    for seq, number in ((1, 0), (3, 1), (4, 2)):  # seq 2 is the reader's own
        ledger.on_stored(number, seq, 11.0)
        ledger.on_given(1, "d1", seq, number, 12.0)
    assert not any(ledger.faults().values())


def test_twice_is_doubled_and_late_is_reordered() -> None:
    ledger = Ledger()
    sent(ledger, 3)
    for number in range(3):
        ledger.on_stored(number, number + 1, 11.0)
    for seq in (1, 3, 2, 3):
        ledger.on_given(1, "d1", seq, seq - 1, 12.0)
    assert ledger.faults() == {"lost": 0, "doubled": 1, "reordered": 1, "two seqs": 0}


def test_stored_and_not_delivered_to_everyone_is_lost() -> None:
    ledger = Ledger()
    sent(ledger, 1, Lane(0, "g1", 3))
    ledger.on_stored(0, 1, 11.0)
    ledger.on_given(1, "g1", 1, 0, 12.0)
    assert ledger.faults()["lost"] == 2
    assert not ledger.settled


def test_what_was_never_answered_is_not_lost_but_not_settled_either() -> None:
    ledger = Ledger()
    sent(ledger, 1)
    assert not ledger.settled
    assert ledger.faults()["lost"] == 0


def test_one_message_answered_with_two_seqs_is_a_fault() -> None:
    ledger = Ledger()
    sent(ledger, 1)
    ledger.on_stored(0, 1, 11.0)
    ledger.on_stored(0, 1, 11.5)
    assert ledger.faults()["two seqs"] == 0
    ledger.on_stored(0, 2, 12.0)
    assert ledger.faults()["two seqs"] == 1


def test_a_receipt_may_come_before_the_answer() -> None:
    ledger = Ledger()
    sent(ledger, 1)
    ledger.on_receipt(0, "d1", 1, 11.0)
    ledger.on_stored(0, 1, 12.0)
    ledger.on_given(1, "d1", 1, 0, 12.0)
    assert ledger.step(0, 1, 1).receipted == 1
    assert ledger.settled


def test_a_receipt_of_the_other_side_says_nothing_about_its_own_messages() -> None:
    ledger = Ledger()
    ledger.on_sent(Lane(0, "d1", 1), 1.0, 1.0)
    ledger.on_sent(Lane(1, "d1", 1), 1.0, 1.0)
    ledger.on_stored(0, 1, 2.0)
    ledger.on_stored(1, 2, 2.0)
    ledger.on_receipt(0, "d1", 2, 3.0)
    assert ledger.step(0, 1, 1).receipted == 1
