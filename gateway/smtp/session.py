"""The server's side of an SMTP session, without I/O: bytes in, events and reply bytes out.

Rules of this file:
- The *order* of commands (RFC 5321 §4.1.4) is the table in states.py, and a state changes in _move() and by that table
  only; arguments are commands.py's, texts are replies.py's, bytes are the framer's.
- What needs no outside knowledge is answered at once (EHLO's syntax, NOOP, RSET, limits…). Everything else is returned
  as an event, and the session then stands still until it is answered with reply(): pipelined commands wait in the
  framer and replies keep the order of their commands (RFC 2920 §3.2). No policy, no sockets, no clock, no log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway import _fastpath as fp
from gateway._fastpath import BDAT, DATA, EHLO, HELO, MAIL, QUIT, RCPT, ContentStore, Framer
from gateway.smtp import foreign, information, replies, sasl, states
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.capabilities import CHUNKS
from gateway.smtp.chunks import Chunk
from gateway.smtp.commands import MailCommand, RcptCommand, Refused, no_argument, parse_ehlo, parse_mail, parse_rcpt
from gateway.smtp.conduct import UNLIMITED, Conduct, SessionLimits
from gateway.smtp.events import (
    AuthRequested,
    EhloRequested,
    Event,
    ExternalRequested,
    GreetingRequested,
    MessageReceived,
    Observer,
    TlsRequested,
)
from gateway.smtp.replies import BYE, START_BODY, Reply
from gateway.smtp.states import END_OF_DATA, State
from gateway.smtp.terms import Terms
from gateway.smtp.xclient import OFFER, XclientRequested, parse_xclient

NO_COMMAND = -1  # the "verb" of replies that answer no command: greeting, time-outs, shutdown

# The states as plain numbers, for the comparisons that every command makes.
_CONNECTED, _READY, _RCPT, _CONTENT, _AUTH, _CLOSED, _CHUNKS = map(
    int, (State.CONNECTED, State.READY, State.RCPT, State.CONTENT, State.AUTH, State.CLOSED, State.CHUNKS)
)
_NEXT, _REFUSALS, _STEPS, _NOWHERE = states.NEXT, states.REFUSALS, states.STEPS, states.NOWHERE
_RCPT_REFUSED, _END = states.RCPT_REFUSED, states.END


class ServerSession:
    """One session."""

    def __init__(self, terms: Terms, observer: Observer, store: ContentStore | None = None) -> None:
        """store: for contents; without it they stay in memory."""
        self._terms = terms
        self._observer = observer
        self._framer = Framer(max(terms.max_line, sasl.MAX_COMMAND) + 2, store)
        self._out: list[bytes] = []
        self.awaiting: Event | None = None  # the event that is still unanswered
        self._verb = NO_COMMAND
        self._argument = b""
        self._messages = 0
        self.state: int = _CONNECTED
        self.closed = False  # nothing more will be read
        self.limits: SessionLimits | None = None  # None: the client may do what it wants
        self.commands = 0  # that were read
        self.penalty = 0.0  # seconds for which the last reply is to be held back, and the session with it
        self._idle = 0  # commands since the last message, but for RCPT and DATA
        self._most_idle = UNLIMITED
        self._conduct: Conduct | None = None  # once the client was refused something
        self._chunk: Chunk | None = None  # what comes next is no command
        self._allowance = -1  # how many more commands may be executed now; negative: any number
        self.ehlo_name = ""
        self.esmtp = False
        self._offered = 0  # which extensions, see capabilities.py
        self._max_size = terms.max_size  # octets of a message, as they were offered
        self._least_time = 0  # see Abilities
        self.tls = False
        self.authenticated = False
        self.quit = False  # the client took its leave
        self.foreign: str | None = None  # which other protocol it speaks: one of foreign.KINDS
        self.identities: tuple[str, ...] = ()  # that the client has shown in its certificate
        self._exchange: sasl.SaslExchange | None = None
        self.may_introduce = False  # XCLIENT is for this peer
        self._introduced = False  # by XCLIENT; who it is says nothing more of itself
        self.mail: MailCommand | None = None
        self.recipients: list[EnvelopeAddress] = []

    # -- the four calls that drive a session --------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the client. Nothing happens before next_event()."""
        self._framer.feed(data)

    def allow(self, most: int) -> None:
        """How many commands next_event() may execute from now on before it stops."""
        self._allowance = most

    def next_event(self) -> Event | None:
        """Works through what was received up to the next event.

        None: more bytes are needed, or an event is still unanswered, or no more is allowed, or the session is closed.
        """
        event: Any
        while self.awaiting is None and not self.closed and self._allowance:
            self._allowance -= 1
            if self.state == _CONTENT or self._chunk is not None:
                event = self._read_content()
            elif self.state == _AUTH:
                event = self._read_auth_line()
            elif self.state == _CONNECTED:
                event = self._read_first()
            else:
                event = self._read_command()
            if event is _INCOMPLETE:
                break
            if event is not None:
                self.awaiting = event
                return self.awaiting
        return None

    def reply(self, reply: Reply) -> None:
        """Answers the event that next_event() returned last, and goes on.

        A positive reply carries the event out (the sender is known, the recipient is added…).
        """
        event = self.awaiting
        self.awaiting = None
        self._say(reply)
        if self.closed:
            return
        if reply.code < 400:
            self._carry_out(event)
        elif type(event) is RcptCommand:
            self._move(_RCPT_REFUSED)

    def data_to_send(self) -> bytes:
        """All replies since the last call, for one write."""
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def hold(self) -> None:
        """Nothing is read until greet() is called."""
        self.awaiting = _GREETING_REQUESTED

    def adopt(self, terms: Terms) -> None:
        """Other terms, while it is held."""
        self._terms = terms
        self._max_size = terms.max_size
        self._framer.lengthen(max(terms.max_line, sasl.MAX_COMMAND) + 2)

    def limit(self, limits: SessionLimits | None) -> None:
        """What the client may do, from now on."""
        self.limits = limits
        self._most_idle = UNLIMITED if limits is None else limits.idle_commands
        self._conduct = None

    def greet(self, reply: Reply) -> None:
        """Says the first reply of the connection: the greeting or a refusal."""
        self.awaiting = None
        self._say(reply)

    def close(self, reply: Reply) -> None:
        """Ends the session with a last reply: time-outs, shutdown."""
        self._verb = NO_COMMAND
        self._argument = b""
        self.awaiting = None
        self._say(reply)
        self._move(_END)

    def tls_started(self) -> None:
        """The handshake is done: everything learned before is dropped (RFC 3207 §4.2)."""
        self.awaiting = None
        self.tls = True
        self.ehlo_name = ""
        self.authenticated = False
        self._move(states.SECURED)

    def is_behind(self) -> bool:
        """True where next_event() stopped only because no more was allowed."""
        return not self._allowance and self.awaiting is None and not self.closed and self._framer.buffered > 0

    def is_idle(self) -> bool:
        """True where a shutdown may end the session: no transaction is under way and nothing waits to be read."""
        return self.awaiting is None and self.state in (_READY, _CONNECTED) and not self._framer.buffered

    def is_over(self) -> bool:
        """Closed, with all replies said."""
        return self.closed

    def give_up(self) -> None:
        """The client is gone, or might as well be."""

    def progress(self) -> tuple[bool, int, int]:
        """What is being received: whether that is a content, also between two of its chunks; its number; its octets."""
        if self.is_receiving() or self.state == _CHUNKS:
            return True, self._messages, self._framer.content_octets
        return False, self.commands, self._framer.buffered

    def is_receiving(self) -> bool:
        """True within a message content."""
        return self.state == _CONTENT or self._chunk is not None

    def needs_room(self) -> bool:
        """True within a message content that has no room to grow in."""
        return self._framer.needs_room()

    def is_bulky(self) -> bool:
        """True within a message content that is large so far, or goes to a file."""
        return self._framer.is_bulky()

    def command(self) -> tuple[int, bytes]:
        """The verb and the argument of what is being answered, as an observer gets them."""
        return self._verb, self._argument

    def buffered(self) -> int:
        """Octets received and not yet worked on."""
        return self._framer.buffered

    def _say(self, reply: Reply) -> None:
        if reply.reason is not None and self.limits is not None:
            reply = self._weighed(reply)
        self._observer.replied(self._verb, reply, self._argument)
        self._out.append(reply.wire)
        if reply.closes:
            self._move(_END)

    def _weighed(self, reply: Reply) -> Reply:
        """A refusal, or what this client gets instead after all that it was refused before."""
        if self._verb in (NO_COMMAND, END_OF_DATA) or reply.closes:
            return reply
        reply, delay = self._its_conduct().weigh(self._verb, reply)
        if delay > 0:
            self.penalty = delay
            self._allowance = 0
        return reply

    def _its_conduct(self) -> Conduct:
        if self._conduct is None:
            assert self.limits is not None
            self._conduct = Conduct(self.limits, self._terms.hostname)
        return self._conduct

    def _count_idle(self) -> None:
        self._idle += 1
        if self._idle > self._most_idle:
            raise Refused(self._its_conduct().too_idle())

    def _move(self, step: int) -> None:
        """The one place where the state changes. step: a verb or one of states.py's."""
        state = _NEXT[self.state * _STEPS + step]
        assert state != _NOWHERE
        self.state = state
        if state == _CLOSED:
            self.closed = True
        if self.mail is not None and state in (_READY, _CONNECTED, _CLOSED):
            self.mail = None  # the transaction is over, done or not
            self._framer.abandon()
            self.recipients = []

    def _carry_out(self, event: Event | None) -> None:
        if type(event) is RcptCommand:
            self._move(RCPT)
            wanted = event
            self.recipients.append(wanted.recipient)
            if wanted.requests is not None:
                self.mail.asked().recipients[wanted.recipient.email] = wanted.requests  # type: ignore[union-attr]
        elif type(event) is MailCommand:
            self._move(MAIL)
            self.mail = event
        elif type(event) is EhloRequested:
            self._begin(event)
        elif type(event) is MessageReceived:
            self._idle = 0
            if self._conduct is not None:
                self._conduct.forgive()
        elif type(event) is AuthRequested or type(event) is ExternalRequested:
            self._move(fp.AUTH)
            self.authenticated = True
        elif type(event) is XclientRequested:
            self._introduce(event)

    def _introduce(self, event: XclientRequested) -> None:
        self._move(fp.XCLIENT)
        self._introduced, self.identities = True, ()
        self.ehlo_name = event.helo or ""
        self.esmtp = False
        self.authenticated = bool(event.login)

    def _begin(self, event: EhloRequested) -> None:
        if self._introduced:  # what comes from here on may be the client's own words, handed through
            self.may_introduce = False
        self.ehlo_name = event.name
        self.esmtp = event.extensions is not None
        self._offered, size, self._least_time = self._terms.read(event.extensions)
        self._max_size = min(self._terms.max_size, size or self._terms.max_size)
        self._move(EHLO if self.esmtp else HELO)

    def _read_command(self) -> Any:
        verb = self._framer.next_verb()
        if verb < 0:
            return _INCOMPLETE
        argument = self._framer.argument
        self.commands += 1
        self._verb = verb
        self._argument = argument
        if len(argument) + 5 > self._terms.max_line and verb != fp.AUTH:  # 5: the verb and the blank behind it
            self._argument = b""
            self._say(replies.LINE_TOO_LONG)
            return None
        refusal = _REFUSALS[self.state * _STEPS + verb]
        if refusal is not None and verb != BDAT:
            return self._refuse(verb, argument, refusal)
        try:
            if verb == MAIL:  # the usual ones need no look into the table
                return self._mail(argument)
            if verb == RCPT:
                return self._rcpt(argument)
            if verb == DATA:
                return self._data(argument)
            if verb == QUIT:
                return self._quit(argument)
            if verb != BDAT:
                self._count_idle()
            if verb == EHLO:
                return self._ehlo(argument)
            return _HANDLERS[verb](self, argument)
        except Refused as refused:
            self._say(refused.reply)
            if verb == RCPT and not self.closed:
                self._move(_RCPT_REFUSED)
            return None

    def _read_first(self) -> Any:
        first = self._framer.first()
        return None if first < 0x20 and self._is_foreign(foreign.kind_of_octet(first)) else self._read_command()

    def _refuse(self, verb: int, argument: bytes, refusal: Reply) -> None:
        if verb == fp.UNKNOWN and self._is_foreign(foreign.kind_of_line(argument, self.state == _CONNECTED)):
            return
        if verb == fp.LINE_TOO_LONG and self._framer.overlong == fp.AUTH:
            refusal = replies.AUTH_TOO_LONG
        self._argument = foreign.loggable(verb, argument)
        self._say(replies.NOT_IMPLEMENTED if verb == fp.UNKNOWN and foreign.is_of_smtp(argument) else refusal)

    def _is_foreign(self, kind: str | None) -> bool:
        """Ends a session of another protocol: nothing in it may be taken for commands."""
        if kind is None:
            return False
        self._verb, self._argument, self.foreign = fp.UNKNOWN, kind.upper().encode(), kind
        self._say(replies.OTHER_PROTOCOL)
        return True

    def _ehlo(self, argument: bytes) -> Event:
        terms = self._terms
        extensions: tuple[str, ...] = terms.extensions_under_tls if self.tls else terms.extensions
        if self.identities:
            extensions = sasl.offers(extensions)
        if self.may_introduce and not self._introduced:
            extensions = (*extensions, OFFER)
        return EhloRequested(parse_ehlo(argument), extensions)

    def _helo(self, argument: bytes) -> Event:
        return EhloRequested(parse_ehlo(argument), None)

    def _mail(self, argument: bytes) -> Event:
        self._count_idle()
        if self._conduct is not None and (refusal := self._conduct.refusal_of_sender()) is not None:
            raise Refused(refusal)
        command = parse_mail(argument, self._terms.offer_auth and self.tls, self._offered)
        if command.size > self._max_size:  # RFC 1870 §6.1: before the data
            raise Refused(replies.MESSAGE_TOO_BIG)
        if command.requests is not None and command.requests.returns_at() < self._least_time:  # seconds as yet
            raise Refused(replies.TOO_LITTLE_TIME)
        if self._messages >= self._terms.max_messages:
            raise Refused(replies.too_many_messages(self._terms.hostname))
        return command

    def _rcpt(self, argument: bytes) -> Event:
        assert self.mail is not None
        conduct = self._conduct
        if conduct is not None and (refusal := conduct.refusal_of_recipient(len(self.recipients))) is not None:
            raise Refused(refusal)
        command = parse_rcpt(argument, self.mail.smtputf8, self._offered)
        if len(self.recipients) >= self._terms.max_recipients:
            raise Refused(replies.TOO_MANY_RECIPIENTS)
        return command

    def _data(self, argument: bytes) -> None:
        no_argument(argument)
        if self.mail.binary:  # type: ignore[union-attr]
            raise Refused(replies.BINARY_BY_BDAT)
        terms = self._terms
        self._framer.start_content(terms.max_size, terms.max_line, terms.rejects_lone_cr_lf)
        self._move(DATA)
        self._say(START_BODY)

    def _done(self, reply: Reply) -> None:
        self._move(self._verb)
        self._say(reply)

    def _rset(self, argument: bytes) -> None:
        no_argument(argument)
        self._done(replies.RESET_OK)

    def _take_text(self, argument: bytes) -> None:
        self._done(information.answer(self._verb, argument, self._terms))

    def _quit(self, argument: bytes) -> None:
        no_argument(argument)
        self._say(BYE)
        self.quit = True
        self._move(QUIT)

    def _starttls(self, argument: bytes) -> Event | None:
        no_argument(argument)
        if self.tls or not self._terms.offer_tls:
            raise Refused(replies.TLS_ACTIVE if self.tls else replies.TLS_UNAVAILABLE)
        if self._framer.buffered:  # in clear, yet meant to be read under TLS: command injection (RFC 3207 §6)
            raise Refused(replies.TLS_PIPELINED)
        self._move(fp.STARTTLS)
        self._say(replies.START_TLS)
        return TlsRequested()

    def _auth(self, argument: bytes) -> Any:
        self._argument = b"***"  # no observer ever sees it
        if self.authenticated:
            raise Refused(replies.AUTH_AGAIN)
        offered = self._terms.offer_auth
        self._exchange, initial = sasl.begin(argument, offered=offered, tls=self.tls, identities=self.identities)
        return self._respond(initial)

    def _respond(self, response: bytes | None) -> Any:
        assert self._exchange is not None
        answer = self._exchange.respond(response)
        if type(answer) is not Reply:
            return answer
        self._move(states.AUTH_CONTINUED)
        self._say(answer)
        return None

    def _xclient(self, argument: bytes) -> Event:
        if not self.may_introduce:
            raise Refused(replies.XCLIENT_DENIED)
        return parse_xclient(argument)

    def _read_auth_line(self) -> Any:
        read = self._framer.next_line(sasl.MAX_LINE + 2)
        if read is None:
            return _INCOMPLETE
        self._move(states.AUTH_RESPONSE)
        try:
            return self._respond(sasl.response(*read))
        except Refused as refusal:
            self._say(refusal.reply)
            return None

    def _read_content(self) -> Any:
        found: Any = self._framer.next_content() if self._chunk is None else self._chunk.read()
        if found is None:
            return _INCOMPLETE
        self._chunk = None
        if type(found) is Reply:  # to a chunk
            return self._say(found)
        self._verb = END_OF_DATA
        mail, recipients = self.mail, self.recipients
        self._messages += 1
        refusal = self._terms.refusal_of(found)
        if refusal is not None:
            self._say(refusal)
        self._move(END_OF_DATA)
        return MessageReceived(mail, recipients, found) if refusal is None else None  # type: ignore[arg-type]

    def _bdat(self, argument: bytes) -> None:
        refusal = _REFUSALS[self.state * _STEPS + BDAT]
        if refusal is None and not self._offered & CHUNKS:
            refusal = replies.NOT_IMPLEMENTED
        binary = self.mail is not None and self.mail.binary
        self._chunk = Chunk(self._framer, self._terms, argument, refusal, is_first=self.state == _RCPT, binary=binary)
        if self._chunk.is_empty:
            self._count_idle()
        if refusal is None:
            self._move(BDAT)


_GREETING_REQUESTED = GreetingRequested()
_INCOMPLETE: Any = object()  # more bytes are needed

_HANDLERS: dict[int, Callable[[ServerSession, bytes], Event | None]] = {
    HELO: ServerSession._helo,
    BDAT: ServerSession._bdat,
    fp.RSET: ServerSession._rset,
    fp.NOOP: ServerSession._take_text,
    fp.VRFY: ServerSession._take_text,
    fp.HELP: ServerSession._take_text,
    fp.STARTTLS: ServerSession._starttls,
    fp.AUTH: ServerSession._auth,
    fp.XCLIENT: ServerSession._xclient,
}
