"""The decision (gateway/decision.py): who may relay, and what becomes of a message. The tables are written out."""

from __future__ import annotations

import itertools

import pytest

from gateway._fastpath import CidrSet
from gateway.config import Disposition, ListenerDomain
from gateway.decision import (
    RELAY,
    Decision,
    Fate,
    Ground,
    ReportKind,
    decide,
    fate,
    grants_anybody,
    ground,
    sender_matters,
)

PEER = bytes([10, 0, 0, 7])
RELAY_TO = ListenerDomain(relay_to=True)
RELAY_FROM = ListenerDomain(relay_from=CidrSet(["10.0.0.0/24"]))
RELAY_FROM_ELSEWHERE = ListenerDomain(relay_from=CidrSet(["192.0.2.0/24"]))
LOGS = ListenerDomain(log_oob=Disposition.LOG)
GRANTS_NOTHING = ListenerDomain()


def decided(relay_host: bool, sender: ListenerDomain | None, recipient: ListenerDomain | None) -> Decision | None:
    return decide(relay_host, PEER, recipient, sender)


@pytest.mark.parametrize(
    ("relay_host", "sender", "recipient", "relay"),
    [
        (False, None, None, False),
        (False, GRANTS_NOTHING, GRANTS_NOTHING, False),
        (True, None, None, True),
        (True, GRANTS_NOTHING, GRANTS_NOTHING, True),
        (False, None, RELAY_TO, True),
        (False, RELAY_TO, None, False),  # relay_to is about the recipient's domain
        (False, RELAY_FROM, None, True),
        (False, None, RELAY_FROM, False),  # relay_from is about the sender's
        (False, RELAY_FROM_ELSEWHERE, None, False),
        (False, RELAY_FROM_ELSEWHERE, RELAY_TO, True),
    ],
)
def test_relaying_is_denied_unless_something_grants_it(relay_host, sender, recipient, relay):
    assert decided(relay_host, sender, recipient) is (RELAY if relay else None)


@pytest.mark.parametrize("relay", [False, True])
def test_a_domain_that_logs_reports_accepts_mail_without_a_grant_to_relay(relay):
    decision = decided(relay, None, LOGS)
    assert decision is not None
    assert (decision.relay, decision.log_oob, decision.log_arf) == (relay, Disposition.LOG, Disposition.IGNORE)


def test_dispositions_of_the_senders_domain_count_for_nothing():
    assert decided(False, LOGS, None) is None


@pytest.mark.parametrize("relay_host", [False, True])
@pytest.mark.parametrize("recipient", [None, RELAY_TO, RELAY_FROM, LOGS])
def test_the_senders_domain_need_not_be_asked_for_where_it_makes_no_difference(relay_host, recipient):
    decisions = [decided(relay_host, sender, recipient) for sender in (None, GRANTS_NOTHING, RELAY_FROM)]
    relayed = {decision is not None and decision.relay for decision in decisions}
    assert sender_matters(relay_host, recipient) is (len(relayed) > 1)


@pytest.mark.parametrize(
    ("domain", "anybody"),
    [(None, False), (GRANTS_NOTHING, False), (RELAY_FROM, False), (RELAY_TO, True), (LOGS, True),
     (ListenerDomain(log_arf=Disposition.LOG_THEN_DROP), True),
     (ListenerDomain(relay_to=True, log_oob=LOGS.log_oob), True)],
)  # fmt: skip
def test_mail_is_taken_from_anybody_where_the_recipients_domain_grants_it(domain, anybody):
    assert grants_anybody(domain) is anybody
    assert (decided(False, None, domain) is not None) is anybody


OOB, ARF = ReportKind.OOB, ReportKind.ARF


DROP, RELAYED = False, True


@pytest.mark.parametrize("kind", ReportKind)
@pytest.mark.parametrize(
    ("disposition", "granted", "report_is", "other_mail_is"),
    [
        # disposition               relay?  content is such a report  content is not
        (Disposition.LOG,            True,  RELAYED,                  RELAYED),
        (Disposition.LOG,            False, DROP,                     None),
        (Disposition.LOG_THEN_RELAY, True,  RELAYED,                  RELAYED),
        (Disposition.LOG_THEN_RELAY, False, RELAYED,                  None),
        (Disposition.LOG_THEN_DROP,  True,  DROP,                     RELAYED),
        (Disposition.LOG_THEN_DROP,  False, DROP,                     None),
    ],
)  # fmt: skip
def test_the_fate_of_a_message(kind, disposition, granted, report_is, other_mail_is):
    if kind is OOB:
        decision, other_kind = Decision(granted, disposition, Disposition.IGNORE), ARF
    else:
        decision, other_kind = Decision(granted, Disposition.IGNORE, disposition), OOB
    unlogged = None if other_mail_is is None else Fate(other_mail_is, None)
    assert fate(decision, kind) == Fate(report_is, kind)
    assert fate(decision, None) == unlogged
    assert fate(decision, other_kind) == unlogged


@pytest.mark.parametrize("kind", [None, *ReportKind])
def test_where_reports_are_ignored_they_are_mail_like_any_other(kind):
    assert fate(RELAY, kind) == Fate(True, None)


ALL = [Decision(*values) for values in itertools.product((False, True), Disposition, Disposition)]


@pytest.mark.parametrize("kind", [None, *ReportKind])
def test_recipients_of_one_class_are_never_accepted_and_then_partly_refused(kind):
    for one, other in itertools.product(ALL, ALL):
        if one.recipient_class == other.recipient_class and (one.relay or one.takes_reports):
            assert (fate(one, kind) is None) == (fate(other, kind) is None), (one, other)


LOG, IGNORE = Disposition.LOG, Disposition.IGNORE


@pytest.mark.parametrize("some", [LOG, Disposition.LOG_THEN_RELAY, Disposition.LOG_THEN_DROP])
def test_recipients_agree_in_whether_they_are_relayed_and_else_in_the_kinds_they_log(some):
    def classes(relay):
        kinds = ((IGNORE, IGNORE), (some, IGNORE), (IGNORE, some), (some, some))
        return [Decision(relay, oob, arf).recipient_class for oob, arf in kinds]

    assert len(set(classes(True))) == 1
    assert len({*classes(False), *classes(True)}) == 5
    assert RELAY.recipient_class in classes(True)


def test_the_content_is_looked_at_for_a_report_where_either_kind_is_logged():
    for relay, oob, arf in itertools.product((False, True), Disposition, Disposition):
        assert Decision(relay, oob, arf).takes_reports is (oob is not IGNORE or arf is not IGNORE)


def test_who_is_relayed_without_a_word_on_reports_has_them_ignored():
    assert (RELAY.relay, RELAY.takes_reports, RELAY.log_oob, RELAY.log_arf) == (True, False, IGNORE, IGNORE)


def test_grounds_are_named_after_the_options_that_grant():
    assert [each.value for each in Ground] == ["relay_hosts", "relay_to", "relay_from", "reports", "nothing"]


@pytest.mark.parametrize(
    ("relay_host", "sender", "recipient", "named"),
    [
        (False, None, None, Ground.NOTHING),
        (False, GRANTS_NOTHING, GRANTS_NOTHING, Ground.NOTHING),
        (False, RELAY_FROM_ELSEWHERE, RELAY_FROM, Ground.NOTHING),
        (True, RELAY_FROM, RELAY_TO, Ground.RELAY_HOSTS),  # each before those that follow
        (False, RELAY_FROM, RELAY_TO, Ground.RELAY_TO),
        (False, RELAY_FROM, LOGS, Ground.RELAY_FROM),
        (False, RELAY_FROM, None, Ground.RELAY_FROM),
        (False, RELAY_FROM_ELSEWHERE, LOGS, Ground.REPORTS),
        (False, None, LOGS, Ground.REPORTS),
    ],
)
def test_the_ground_is_the_first_grant_that_holds(relay_host, sender, recipient, named):
    assert ground(relay_host, PEER, recipient, sender) is named


def test_a_ground_is_named_exactly_where_the_decision_has_one():
    domains = [None, *(
        ListenerDomain(relay_to=to, relay_from=CidrSet(peers), log_oob=oob)
        for to in (False, True) for peers in ((), ("10.0.0.0/8",)) for oob in (Disposition.IGNORE, Disposition.LOG)
    )]  # fmt: skip
    for relay_host in (False, True):
        for recipient in domains:
            for sender in domains:
                decision = decide(relay_host, b"\n\0\0\1", recipient, sender)
                found = ground(relay_host, b"\n\0\0\1", recipient, sender)
                assert (found is Ground.NOTHING) == (decision is None)
                if decision is not None:
                    assert (found is Ground.REPORTS) == (not decision.relay)
