"""What is logged of a transaction: which records, in which order, and whether a logger took those that a 250 rests on.

The layout of records is gateway/logs', whether the reply waits for them the verdict's business.
"""

from __future__ import annotations

from gateway.delivery.recognition import Recognition, count
from gateway.delivery.routing import Delivery
from gateway.delivery.services import Services
from gateway.logs import records
from gateway.mail.message import Message


class Accepted:
    """A message that goes on, or whose record is all that stays of it.

    queue_name: its first recipient's. report: what is logged of it, None for no report. relayed: somebody gets it.
    dropped: somebody is served by the report's record alone.
    """

    def __init__(
        self,
        message: Message,
        queue_name: str,
        report: Recognition | None,
        relayed: int,
    ) -> None:
        """relayed: how many of its recipients get it."""
        self.message = message
        self.queue_name = queue_name
        self.report = report
        self.relayed = relayed > 0
        self.dropped = report is not None and relayed < len(message.recipients)


def log_messages(
    services: Services, origin: records.Origin, accepted: list[Accepted], unreadable: str | None, now_ns: int
) -> bool:
    """A Reception for each message, or what takes its place for a report. Returns whether some logger took a record of
    every report that is dropped.

    unreadable: why what claimed to be a report was taken for none. now_ns: nanoseconds since 1970.
    """
    all_taken = True
    for entry in accepted:
        message, found = entry.message, entry.report
        if found is None:
            record = records.reception(message, origin, entry.queue_name, now_ns, unreadable)
            services.logs.submit(record, message)
            continue
        logged = found.records(message, origin, entry.queue_name, now_ns)
        taken = [services.logs.submit(record, message) for record in logged]
        if entry.dropped and True not in taken:
            all_taken = False
        count(found, message, logged=bool(logged), relayed=entry.relayed, page=services.page)
    return all_taken


def log_hand_overs(
    services: Services, origin: records.Origin, handed_over: list[Delivery], accepted: bool, now_ns: int
) -> bool:
    """What became of each hand-over. Returns whether some logger took every Bounce.

    accepted: whether the client gets a 250. Otherwise nothing has bounced, since the client still has it: the
    Rejection, which is logged with the reply, says it all. now_ns: nanoseconds since 1970.
    """
    all_taken = True
    for delivery in handed_over:
        message, result = delivery.message, delivery.result
        assert result is not None
        pool = delivery.destination.queue.egress_pool
        for record in records.handed_over(message, origin, delivery.queue_name, result, now_ns, pool, delivery.notice):
            bounced = record.type == "Bounce"
            if bounced and not accepted:
                continue
            if not services.logs.submit(record, message) and bounced:
                all_taken = False
    return all_taken
