"""Terms: what a listener offers its clients, demands of them and does with contents, worked out once for all sessions.

No session's state: what is kept of the last answers is the same for whoever asks the same.
"""

from __future__ import annotations

from gateway._fastpath import Content
from gateway.config import EarlyTalker, LineEndings, ListenerParams, TlsMode
from gateway.smtp import replies
from gateway.smtp.capabilities import REQUIRE_TLS, Abilities, offered, with_fleet
from gateway.smtp.conduct import session_limits
from gateway.smtp.replies import Reply
from gateway.smtp.sasl import OFFER

_MOST_TOLD = 1_000_000  # RFC 9422 §4: a number has six digits at most


class MessageCount:
    """messages: received completely, by the sessions that share it."""

    def __init__(self) -> None:
        self.messages = 0


class Terms:
    """params: where they come from. offer_tls: STARTTLS is offered. offer_auth: AUTH is (under TLS).

    greeting: the reply that opens a session. extensions, extensions_under_tls: what EHLO offers, a line each.
    rejects_lone_cr_lf: in a content. begins_otherwise: something else is said before the session. greets_late:
    strangers may have to wait for the banner. takes_xclient: from some.
    implicit_tls: a session begins under TLS. What else is not told here is that of ListenerParams; a line's limit is in
    octets, without CRLF. scope: whose limits are counted apart from others'. counts_networks,
    counts_identities: what somebody sends in a time counts with all of their network, of their name.
    """

    def __init__(
        self, params: ListenerParams, *, offer_tls: bool = True, offer_auth: bool = False, scope: str = ""
    ) -> None:
        self.params = params
        self.scope = scope
        self.hostname = params.hostname
        self.relay_hosts = params.relay_hosts
        self.max_line = params.line_length_hard_limit
        self.max_size = params.max_message_size
        self.max_recipients = params.max_recipients_per_message
        self.max_messages = params.max_messages_per_connection
        self.rejects_lone_cr_lf = params.invalid_line_endings is LineEndings.DENY
        self.begins_otherwise = params.require_proxy_protocol or params.proxy_protocol_from is not None
        limits = params.limits
        self.counts_networks = (limits.message_rate, limits.recipient_rate, limits.octet_rate) != (None, None, None)
        self.counts_identities = params.limits_per_identity is not None
        self.limits = session_limits(params, trusted=False)
        self.limits_of_relay_hosts = session_limits(params, trusted=True)
        self.greets_late = params.banner_delay > 0 or params.early_talker is EarlyTalker.REJECT
        self.takes_xclient = params.allow_xclient or params.xclient_from is not None
        self.implicit_tls = params.tls_mode is TlsMode.IMPLICIT
        self.offer_tls = offer_tls and "STARTTLS" not in params.withhold_extensions
        self.offer_auth = offer_auth and "AUTH" not in params.withhold_extensions
        self.greeting = replies.greeting(params.hostname, params.banner)
        self.received_header = params.trace_headers.received_header
        self.supplemental_header = params.trace_headers.supplemental_header
        self.header_name = params.trace_headers.header_name
        self.include_meta_names = params.trace_headers.include_meta_names
        self.batch_handling = params.batch_handling
        self.fix_line_endings = params.invalid_line_endings is LineEndings.FIX
        self.processing_timeout = params.data_processing_timeout
        self.feedback_senders = params.feedback_senders
        self.report_excerpt = params.report_excerpt
        size = f"SIZE {params.max_message_size}"
        always = ("PIPELINING", size, "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", *_limits(params))
        self.extensions = (*always, "STARTTLS") if self.offer_tls else always
        self.extensions_under_tls = (*always, OFFER) if self.offer_auth else always
        self._lines: tuple[str, ...] = ()  # the last answer of offered(), and what it was asked
        self._taken: Abilities | None = None
        self._tls = False
        self._offered: tuple[str, ...] = ()
        self._read_lines: tuple[str, ...] | None = None  # likewise, of read()
        self._read = offered(None)

    def offered(self, lines: tuple[str, ...], taken: Abilities, tls: bool) -> tuple[str, ...]:
        """What EHLO offers: of these lines, a listener's own, what the fleet takes, too, and what else that promises;
        but nothing that is withheld. The fleet's abilities, and most sessions' lines, are the same again and again.
        """
        if taken is not self._taken or lines is not self._lines or tls != self._tls:
            able = taken if tls or not taken.capabilities & REQUIRE_TLS else taken.without(REQUIRE_TLS)
            self._offered = with_fleet(lines, able, self.params.withhold_extensions)
            self._lines, self._taken, self._tls = lines, taken, tls
        return self._offered

    def read(self, lines: tuple[str, ...] | None) -> Abilities:
        """What these lines of an answer to EHLO offer; None: it was HELO."""
        if lines is not self._read_lines:
            self._read_lines, self._read = lines, offered(lines)
        return self._read

    def refusal_of(self, content: Content) -> Reply | None:
        """What a content gets that breaks a rule; None for one that breaks none."""
        if content.too_big:
            return replies.MESSAGE_TOO_BIG
        if content.long_line:
            return replies.BODY_LINE_TOO_LONG
        if (content.bare_cr or content.bare_lf) and self.rejects_lone_cr_lf:
            return replies.LINE_ENDINGS
        if content.lost:
            return replies.NO_ROOM
        return None

    def trusts(self, peer: bytes) -> bool:
        """Whether this peer, a packed address, may say with XCLIENT who its client is."""
        listed = self.params.xclient_from
        return self.takes_xclient if listed is None else peer in listed


def _limits(params: ListenerParams) -> tuple[str, ...]:
    """The line that says how much one session and one transaction may have (RFC 9422 §4); none without numbers."""
    limits = {"MAILMAX": params.max_messages_per_connection, "RCPTMAX": params.max_recipients_per_message}
    told = [f"{name}={most}" for name, most in limits.items() if most < _MOST_TOLD]
    return (f"LIMITS {' '.join(told)}",) if told else ()
