"""The client's side of SMTP towards one upstream server, without I/O: bytes in, events and bytes out.

Lives here: the order of commands (greeting, EHLO, STARTTLS, AUTH, then one transaction after the other, each behind the
introduction of its client where that is wanted), what the server offers, and the rule that decides whether the content
goes out: MAIL and DATA accepted, a recipient accepted, none deferred unless the batch is divisible, because a message
must not reach some now and again all of them later. The content for a single recipient needs no such care, and goes out
with the envelope where the server offers CHUNKING. What answers mean for each recipient is couriers/fleet/outcome.py's.
RFC 5321, 1870 (SIZE), 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS), 4954 (AUTH), 6152 (8BITMIME), 6531.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.config import ClientAddress, EgressPath, UpstreamTls
from gateway.smtp.capabilities import Abilities, announced
from gateway.smtp.client_values import STAGES, ClientState, Event, Failure, Stage, timeouts
from gateway.smtp.exchange import END_OF_DATA, MOST_UNASKED, Exchange, in_pieces
from gateway.smtp.introduction import INSECURE, Introduced, Unfit, auth_plain, introduction, without_secrets
from gateway.smtp.response import Answer, ReplyReader, belongs, extensions_of, has_enough, shown

# What is looked up for every message; CPython 3.11 takes its time to find a member in its enum.
_READY, _ENVELOPE, _CONTENT = ClientState.READY, ClientState.ENVELOPE, ClientState.CONTENT
_RESET, _CLOSED, _CONCLUDED = ClientState.RESET, ClientState.CLOSED, Event.CONCLUDED

# What a server must offer to be sent a chunk with the envelope. A chunk has no 354 by which answers and questions would
# show that they still belong together, so enhanced codes (RFC 2034 §4) must show it, as a message by DATA has seen.
_TELLING = {"CHUNKING", "ENHANCEDSTATUSCODES"}

# Answers to BDAT by which a server, or a firewall in front of it, does not know the command: RFC 5321 §4.2.2, x0z.
_BDAT_UNKNOWN = (500, 501, 502, 503, 504)


class ClientSession:
    """One connection's SMTP dialogue.

    path: TLS, pipelining and timeouts wanted. ehlo_domain: for EHLO where the path names none; must be there before the
    first octet is received. password: for AUTH, where the path wants it.
    """

    def __init__(self, path: EgressPath, ehlo_domain: str) -> None:
        self.state = ClientState.GREETING
        self.ehlo_domain = path.ehlo_domain or ehlo_domain
        self.extensions: dict[str, str] = {}  # keyword, in upper case → parameters
        self.takes = Abilities(0)  # those of them that concern more than one hop
        self.capabilities = 0  # the same, see capabilities.py
        self.size_limit = 0  # octets the server takes at most; 0 when it named no limit
        self.exchange: Exchange | None = None
        self.failure: Failure | None = None
        self.failed_at = Stage.IDLE  # what was due then
        self.detail = ""  # of the failure, for the log only
        self.heard = False  # the last octets were the end of an answer
        self.answered: list[tuple[Stage, int]] = []  # codes outside transactions, for the caller to count and clear
        self.turned_away = False  # the failure is that the server takes no connection now
        self.bdat_unknown = False  # CHUNKING was offered, but the failure is that BDAT is not understood
        self.out_of_step = False  # the failure is that something was said that was not asked for
        self.not_introduced = ""  # why the server does not know the client, for the log
        self._path = path
        self.password = ""
        self._authenticated = False
        self._introduction = ""  # to be said before MAIL
        self._introduced = ""  # what XCLIENT has told, which holds until it tells another
        self._timeouts = timeouts(path)
        self._reader = ReplyReader()
        self._output: list[bytes] = []
        self._pieces: Iterator[tuple[bytes, bool]] | None = None  # of a content that is on its way
        self._commands: list[str] = []  # RCPT… and DATA, when they go out one by one
        self._pipelining = False
        self._chunking = False
        self._tells = False  # its answers to a transaction by DATA were such as a chunk needs
        self._tls_active = False

    # --- the caller's side --------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> Event | None:
        """What the server sent. Returns at most one event: none can follow another before the caller has acted."""
        if self.state is _CLOSED:
            return None
        reader = self._reader
        answers = reader.read(data)
        self.heard = bool(answers)
        if answers and self._output:  # what it would be an answer to has not been sent yet
            return self._on_unsolicited(answers[0])
        if not answers and (self.state is _READY or self._output):  # with the rest it would pass for one later
            return self._not_asked_for()
        for place, answer in enumerate(answers, 1):
            if self.state is _ENVELOPE:
                event = self._on_envelope(answer)
            elif self.state is _CONTENT:
                event = self._on_content(answer)
            else:
                self.answered.append((self.stage, answer[0]))
                event = _REACTIONS[self.state](self, answer)
            if event is not None or self._output or self._pieces is not None:
                if place < len(answers):
                    return self._out_of_step(event, answers[place])
                if reader.pending:
                    return self._out_of_step(event, None)
                if event is not None:
                    return event
        return self.fail(Failure.PROTOCOL, reader.malformed) if reader.malformed else None

    def has_output(self) -> bool:
        """True when data_to_send has something."""
        return bool(self._output) or self._pieces is not None

    def is_sending(self) -> bool:
        """True when the rest of a content is to be sent, a piece with each call of data_to_send."""
        return self._pieces is not None

    def data_to_send(self) -> list[bytes]:
        """What to write next, as one gathered write: everything since the last call, but of a large content a piece.

        Content is passed through, not copied. Raises OSError where it cannot be read.
        """
        output = self._output
        if output or self._pieces is not None:
            self._output = []
        if self._pieces is not None:
            output.append(self._next_piece())
        return output

    def _next_piece(self) -> bytes:
        assert self._pieces is not None and self.exchange is not None
        piece, is_last = next(self._pieces)
        if is_last:
            self._pieces = None
            self.exchange.content_sent = True
        return piece

    def begin(self, exchange: Exchange) -> None:
        """Start an exchange; the state must be READY."""
        if self.state is not _READY:
            raise RuntimeError(f"an exchange cannot begin while {self.state.name}")
        self.exchange = exchange
        if self._introduction:
            self.state = ClientState.INTRODUCTION
            self._say(self._introduction)
            return
        self._transact(exchange)

    def introduce(self, client: Introduced | None) -> None:
        """Who the client of the next exchange is; None for the gateway itself. The path says how."""
        how = self._path.client_address
        if how is None or how is ClientAddress.PROXY:
            return
        self._introduction = introduction(how, client, self.extensions)
        if not self._introduction and client is not None:
            self.not_introduced = f"{how.value.upper()} is not offered"
        if self._introduction == self._introduced:
            self._introduction = ""

    def _transact(self, exchange: Exchange) -> None:
        self.state = _ENVELOPE
        mail = f"MAIL FROM:<{exchange.sender.email}>{self._mail_parameters(exchange)}\r\n"
        if self._chunking and self._tells and exchange.fits_one_chunk():
            exchange.chunked = exchange.content_sent = True
            (rcpt,) = exchange.rcpt_commands(self.capabilities)
            self._say(f"{mail}{rcpt}BDAT {exchange.content.size} LAST\r\n")
            self._output += exchange.content.pieces()
            return
        commands = exchange.rcpt_commands(self.capabilities)
        if not exchange.content.binary:
            commands.append("DATA\r\n")
        if self._pipelining:
            commands.insert(0, mail)
            self._say("".join(commands))
        else:
            self._commands = commands
            self._say(mail)

    def without_chunks(self) -> None:
        """Send by DATA from now on, in which an answer too many is noticed before the content goes out."""
        self._chunking = False

    def quit(self) -> None:
        """Take leave of a session that is READY; BYE follows."""
        self.state = ClientState.QUIT
        self._say("QUIT\r\n")

    def tls_started(self) -> None:
        """The handshake that START_TLS asked for succeeded. What the server said before does not count any more."""
        self._tls_active = True
        self._hello()

    def fail(self, failure: Failure, detail: str) -> Event:
        """Give the session up: nothing more is sent, and an exchange under way stays without its last answer."""
        self.failed_at = self.stage
        if self._output and self.exchange is not None and self.state in (_ENVELOPE, _CONTENT):
            self.exchange.content_sent = False  # its end is still in the output, and stays there
        self.state = ClientState.CLOSED
        self.failure = failure
        self.detail = detail
        self._output = []
        self._pieces = None
        return Event.FAILED

    @property
    def stage(self) -> Stage:
        """What the server's next answer will be an answer to."""
        if self.state is not _ENVELOPE or self.exchange is None:
            return STAGES[self.state]
        return self.exchange.due()

    @property
    def timeout(self) -> float:
        """Seconds that the server has for its next answer; when none is due, how long to keep the connection."""
        return self._timeouts[self.stage]

    # --- commands -----------------------------------------------------------------------------------------------------

    def _say(self, commands: str) -> None:
        self._output.append(commands.encode())

    def _hello(self) -> None:
        self.state = ClientState.EHLO
        self._say(f"{'LHLO' if self._path.use_lmtp else 'EHLO'} {self.ehlo_domain}\r\n")

    def _mail_parameters(self, exchange: Exchange) -> str:
        parameters = ""
        if "SIZE" in self.extensions:
            parameters = f" SIZE={exchange.content.size}"
        if exchange.content.binary:
            parameters += " BODY=BINARYMIME"
        elif exchange.content.has_8bit:  # whoever has not offered 8BITMIME gets no such content: RFC 6152 §3
            parameters += " BODY=8BITMIME"
        if exchange.smtputf8:
            parameters += " SMTPUTF8"
        return parameters if exchange.requests is None else parameters + exchange.mail_parameters(self.capabilities)

    # --- answers, one method per state --------------------------------------------------------------------------------

    def _on_greeting(self, answer: Answer) -> Event | None:
        if answer[0] != 220:
            self.turned_away = answer[0] // 100 == 4
            return self.fail(Failure.GREETING, f"greeting: {shown(answer)}")
        self._hello()
        return None

    def _on_ehlo(self, answer: Answer) -> Event | None:
        code, octets = answer
        if code // 100 == 5 and not self._path.use_lmtp:  # RFC 5321 §3.2: a server without extensions
            self.state = ClientState.HELO
            self._say(f"HELO {self.ehlo_domain}\r\n")
            return None
        if code != 250:
            self.turned_away = code // 100 == 4
            return self.fail(Failure.GREETING, f"EHLO: {shown(answer)}")
        self.extensions = extensions_of(octets)
        verified = self._tls_active and self._path.enable_tls not in INSECURE
        self.takes = announced(self.extensions, verified=verified, lmtp=self._path.use_lmtp)
        self.capabilities, self.size_limit = self.takes.capabilities, self.takes.size
        return self._greeted()

    def _on_helo(self, answer: Answer) -> Event | None:
        if answer[0] != 250:
            return self.fail(Failure.GREETING, f"HELO: {shown(answer)}")
        return self._greeted()

    def _greeted(self) -> Event | None:
        tls = self._path.enable_tls
        if not self._tls_active and tls is not UpstreamTls.DISABLED:
            if "STARTTLS" in self.extensions:
                self.state = ClientState.STARTTLS
                self._say("STARTTLS\r\n")
                return None
            if tls in (UpstreamTls.REQUIRED, UpstreamTls.REQUIRED_INSECURE):
                return self.fail(Failure.TLS, "STARTTLS is required and not offered")
        if self._path.smtp_auth_plain_username is not None and not self._authenticated:
            return self._authenticate()
        self._pipelining = self._path.enable_pipelining and "PIPELINING" in self.extensions
        wanted = self._path.enable_chunking and not self._path.use_lmtp if self.exchange is None else self._chunking
        self._chunking = wanted and self._pipelining and self.extensions.keys() >= _TELLING
        if self.exchange is not None:  # XCLIENT began all anew
            self._transact(self.exchange)
            return None
        self.state = ClientState.READY
        return Event.READY

    def _authenticate(self) -> Event | None:
        try:
            command = auth_plain(self._path, self.password, self.extensions, self._tls_active)
        except Unfit as problem:
            return self.fail(Failure.AUTH, str(problem))
        self.state = ClientState.AUTH
        self._say(command)
        return None

    def _on_auth(self, answer: Answer) -> Event | None:
        if answer[0] != 235:  # RFC 4954 §6; no 334, since nothing is left to say
            command = auth_plain(self._path, self.password, self.extensions, self._tls_active)
            said = without_secrets(shown(answer), self._path, self.password, command)
            return self.fail(Failure.AUTH, f"AUTH PLAIN: {said}")
        self._authenticated = True
        return self._greeted()

    def _on_introduced(self, answer: Answer) -> Event | None:
        code, exchange, command = answer[0], self.exchange, self._introduction
        assert exchange is not None
        self._introduction = ""
        if code == 421:
            return self.fail(Failure.LOST, shown(answer))
        if code // 100 != 2:  # the message counts for more than who has sent it
            self.not_introduced = f"{command.split()[0]}: {shown(answer)}"
        elif self._path.client_address is ClientAddress.XCLIENT:  # the server greets again: XCLIENT_README
            self._introduced = command
            self._authenticated = False
            self._hello()
            return None
        self._transact(exchange)
        return None

    def _on_starttls(self, answer: Answer) -> Event | None:
        if answer[0] != 220:  # going on in clear would let anyone on the way switch TLS off
            return self.fail(Failure.TLS, f"STARTTLS: {shown(answer)}")
        self.state = ClientState.HANDSHAKE
        return Event.START_TLS

    def _on_envelope(self, answer: Answer) -> Event | None:
        exchange = self.exchange
        assert exchange is not None
        code = answer[0]
        kind = code // 100
        if kind > 3:
            exchange.content_sent = False  # whatever was sent, there is no transaction to take it in
        if code == 421:  # RFC 5321 §3.8: the server leaves; this is no verdict on the message
            return self.fail(Failure.LOST, shown(answer))
        if exchange.mail is not None and len(exchange.rcpts) == len(exchange.recipients):
            return self._on_last_of_envelope(exchange, answer)
        if kind == 3:
            return self._out_of_place(answer)
        if exchange.mail is None:
            exchange.mail = answer
        else:
            self._on_rcpt(exchange, answer)
            if exchange.content.binary and len(exchange.rcpts) == len(exchange.recipients):
                return self._on_binary(exchange)
        return None if self._pipelining else self._next_command(exchange)

    def _on_rcpt(self, exchange: Exchange, answer: Answer) -> None:
        exchange.rcpts.append(answer)
        code = answer[0]
        kind = code // 100
        if kind == 2:
            exchange.accepted += 1
        elif exchange.accepted and has_enough(answer):
            exchange.postponed += (len(exchange.rcpts) - 1,)
        elif kind == 4:
            exchange.deferred = True
        if exchange.content_sent:
            self.state = _CONTENT

    def _on_last_of_envelope(self, exchange: Exchange, answer: Answer) -> Event | None:
        """The answer to DATA; or to BDAT, where the envelope was refused."""
        code = answer[0]
        if code // 100 == (3 if exchange.chunked else 2):
            return self._out_of_place(answer)
        if exchange.chunked:
            exchange.verdict = answer
            return self._refused(exchange)
        exchange.data = answer
        return self._on_data(exchange, answer)

    def _on_binary(self, exchange: Exchange) -> Event | None:
        """All of the envelope is answered: the content goes out as one chunk, as it is (RFC 3030 §3)."""
        if not exchange.content_may_follow():
            return self._conclude(_RESET)
        self._say(f"BDAT {exchange.content.size} LAST\r\n")
        return self._send(exchange)

    def _out_of_place(self, answer: Answer) -> Event:
        return self.fail(Failure.PROTOCOL, f"out of place: {shown(answer)}")

    def _next_command(self, exchange: Exchange) -> Event | None:
        """Without PIPELINING: what to say after an answer to MAIL or RCPT."""
        answered = len(exchange.rcpts)
        refused = exchange.mail is not None and exchange.mail[0] // 100 != 2
        if refused or (answered == len(exchange.recipients) and not exchange.content_may_follow()):
            return self._conclude(_RESET)
        self._say(self._commands[answered])
        return None

    def _on_data(self, exchange: Exchange, answer: Answer) -> Event | None:
        code = answer[0]
        if code // 100 != 3:
            return self._conclude(_RESET)
        if not exchange.content_may_follow():
            # RFC 2920 §3.1 would have a lone dot sent here; closing cannot be mistaken for an empty message
            return self._conclude(_CLOSED)
        return self._send(exchange)

    def _send(self, exchange: Exchange) -> Event | None:
        """The content, and its end; of a large one a piece at a time."""
        self.state = _CONTENT
        content = exchange.content
        if not content.in_memory and content.octets > MOST_UNASKED:
            self._pieces = in_pieces(content)
            return None
        exchange.content_sent = True
        self._output += content.plain_pieces() if content.binary else content.pieces()
        if not content.binary:
            self._output.append(END_OF_DATA)
        return None

    def _on_content(self, answer: Answer) -> Event | None:
        exchange = self.exchange
        assert exchange is not None
        code = answer[0]
        if code // 100 == 3:
            return self._out_of_place(answer)
        if code == 421:  # the server leaves, and has not said what becomes of the message
            return self.fail(Failure.LOST, shown(answer))
        if exchange.chunked and code in _BDAT_UNKNOWN:
            exchange.content_sent = False
            self.bdat_unknown = True
            return self.fail(Failure.PROTOCOL, f"CHUNKING is offered, but BDAT answered: {shown(answer)}")
        if self._pieces is not None:
            return self._on_early_answer(exchange, answer)
        if exchange.chunked and code // 100 == 2 and not belongs(exchange.rcpts[0], answer):
            self.out_of_step = True
            return self._out_of_place(answer)
        exchange.verdict = answer
        if self._chunking and not self._tells:
            self._tells = belongs(exchange.rcpts[0], answer)
        return self._conclude(_READY) if code // 100 == 2 else self._refused(exchange)  # the next MAIL needs no RSET

    def _on_early_answer(self, exchange: Exchange, answer: Answer) -> Event:
        """To a content that was not sent to its end: a refusal counts, but the rest cannot be left out."""
        if answer[0] // 100 == 2:
            return self.fail(Failure.PROTOCOL, "an answer to the content before it was sent")
        exchange.verdict = answer
        self._pieces = None
        return self._conclude(_CLOSED)

    def _refused(self, exchange: Exchange) -> Event:
        """After a refusal RSET makes room for the next transaction, but not where the content came with it.

        RFC 3030 §2 has the server discard it; some read it as commands, and answer these before the next message.
        """
        return self._conclude(_CLOSED if exchange.chunked or exchange.content.binary else _RESET)

    def _conclude(self, state: ClientState) -> Event:
        self.state = state
        if state is _RESET:
            self._say("RSET\r\n")
        return _CONCLUDED

    def _on_reset(self, answer: Answer) -> Event | None:
        if answer[0] // 100 != 2:
            return self.fail(Failure.PROTOCOL, f"RSET: {shown(answer)}")
        self.state = ClientState.READY
        return Event.READY

    def _on_quit(self, answer: Answer) -> Event | None:
        self.state = ClientState.CLOSED
        return Event.BYE

    def _on_unsolicited(self, answer: Answer) -> Event:
        if answer[0] == 421:
            return self.fail(Failure.LOST, f"unasked: {shown(answer)}")
        self.out_of_step = True
        return self.fail(Failure.PROTOCOL, f"unasked: {shown(answer)}")

    def _not_asked_for(self) -> Event:
        self.out_of_step = True
        return self.fail(Failure.PROTOCOL, "octets that were not asked for")

    def _out_of_step(self, event: Event | None, surplus: Answer | None) -> Event:
        """More arrived than was asked for, so that no answer can be trusted to belong to what it was taken for.

        surplus: the first answer too many; None where it is not whole.
        """
        if event is Event.FAILED or event is Event.BYE:
            return event
        leaving = surplus is not None and surplus[0] == 421
        exchange = self.exchange
        if event is _CONCLUDED and exchange is not None:
            self._output = []  # RSET
            in_vain = exchange.chunked and not exchange.content_sent  # see _refused
            if in_vain or (leaving and not exchange.taken()):  # RFC 5321 §3.8: after a refusal the server may leave
                self.state = _CLOSED
                return event
            self.state = _CONTENT if exchange.content_sent else _ENVELOPE  # where the answer that is missing is due
            exchange.verdict = exchange.verdicts = None
        return self._on_unsolicited(surplus) if surplus is not None else self._not_asked_for()


# in every state but ENVELOPE and CONTENT
_REACTIONS: dict[ClientState, Callable[[ClientSession, Answer], Event | None]] = {
    ClientState.GREETING: ClientSession._on_greeting,
    ClientState.EHLO: ClientSession._on_ehlo,
    ClientState.HELO: ClientSession._on_helo,
    ClientState.STARTTLS: ClientSession._on_starttls,
    ClientState.HANDSHAKE: ClientSession._on_unsolicited,
    ClientState.AUTH: ClientSession._on_auth,
    ClientState.INTRODUCTION: ClientSession._on_introduced,
    ClientState.READY: ClientSession._on_unsolicited,
    ClientState.RESET: ClientSession._on_reset,
    ClientState.QUIT: ClientSession._on_quit,
}
