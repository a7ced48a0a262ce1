"""LMTP (RFC 2033) from the client's side: as client.py has SMTP, but that the server answers to the content once for
each recipient that it has accepted, in their order.

LHLO in the place of EHLO is client.py's, which asks the path; what each answer means is couriers/fleet/outcome.py's.
"""

from __future__ import annotations

from gateway.smtp.client import ClientSession
from gateway.smtp.client_values import ClientState, Event, Failure
from gateway.smtp.response import Answer


class LmtpSession(ClientSession):
    """One connection's LMTP dialogue, of a path with `use_lmtp`."""

    def _on_content(self, answer: Answer) -> Event | None:
        exchange = self.exchange
        assert exchange is not None
        code = answer[0]
        if code // 100 == 3:
            return self._out_of_place(answer)
        if code == 421:  # it leaves; whom it has answered, it has
            return self.fail(Failure.LOST, "421 in the place of an answer to the content")
        if self._pieces is not None:
            return self.fail(Failure.PROTOCOL, "an answer to the content before it was sent")
        if exchange.verdicts is None:
            exchange.verdicts = []
        exchange.verdicts.append(answer)
        if len(exchange.verdicts) < exchange.accepted:  # RFC 2033 §4.2
            return None
        taken = [each for each in exchange.verdicts if each[0] // 100 == 2]
        exchange.verdict = taken[0] if taken else answer
        return self._conclude(ClientState.READY)
