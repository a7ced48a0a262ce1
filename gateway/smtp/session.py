"""The server's side of an SMTP session, without I/O: bytes in, events and reply bytes out.

Rules of this file:
- The *order* of commands is the table in states.py, and a state changes in _move() and by that table only; arguments
  are commands.py's, texts are replies.py's, bytes are the framer's.
- What needs no outside knowledge is answered at once (EHLO's syntax, NOOP, RSET, limits…). Everything else is returned
  as an event, and the session then stands still until it is answered with reply(): pipelined commands wait in the
  framer and replies keep the order of their commands (RFC 2920 §3.2).
- No policy, no sockets, no clock, no log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway import _fastpath as fp
from gateway._fastpath import DATA, EHLO, HELO, MAIL, QUIT, RCPT, ContentStore, Framer
from gateway.smtp import replies, states
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.commands import MailCommand, Refused, decode_plain, parse_ehlo, parse_mail, parse_rcpt, parse_text
from gateway.smtp.conduct import UNLIMITED, Conduct, SessionLimits
from gateway.smtp.events import (
    AuthRequested,
    EhloRequested,
    Event,
    GreetingRequested,
    MessageReceived,
    RcptRequested,
    TlsRequested,
)
from gateway.smtp.replies import BYE, START_BODY, Reply
from gateway.smtp.states import END_OF_DATA, State
from gateway.smtp.terms import Terms

MAX_AUTH_LINE = 12_288  # octets without CRLF, RFC 4954 §4
NO_COMMAND = -1  # the "verb" of replies that answer no command: greeting, time-outs, shutdown


# The states as plain numbers, for the comparisons that every command makes.
_CONNECTED, _READY, _CONTENT, _AUTH, _CLOSED = map(
    int, (State.CONNECTED, State.READY, State.CONTENT, State.AUTH, State.CLOSED)
)
_NEXT, _REFUSALS, _STEPS, _NOWHERE = states.NEXT, states.REFUSALS, states.STEPS, states.NOWHERE
_RCPT_REFUSED, _END = states.RCPT_REFUSED, states.END


class Observer:
    """Sees every reply before it is sent. This one does nothing with it."""

    def replied(self, verb: int, reply: Reply, argument: bytes) -> None:
        """verb: an index into VERB_NAMES, NO_COMMAND or END_OF_DATA. argument: the command's, without any AUTH data."""

    def held(self, verb: int, reply: Reply, argument: bytes) -> Any:
        """The reply is made, but sent later, and may have other words then. Returns what released() needs to know."""

    def released(self, verb: int, reply: Reply, argument: bytes, kept: Any) -> None:
        """A reply that was held is sent. kept: what held() returned."""


class ServerSession:
    """One session."""

    def __init__(self, terms: Terms, observer: Observer, store: ContentStore | None = None) -> None:
        """store: for contents; without it they stay in memory."""
        self._terms = terms
        self._observer = observer
        self._framer = Framer(max(terms.max_line, MAX_AUTH_LINE) + 2, store)
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
        self._allowance = -1  # how many more commands may be executed now; negative: any number
        self.ehlo_name = ""
        self.esmtp = False
        self.tls = False
        self.authenticated = False
        self.quit = False  # the client took its leave
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
            if self.state == _CONTENT:
                event = self._read_content()
            elif self.state == _AUTH:
                event = self._read_auth_line()
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
        elif type(event) is RcptRequested:
            self._move(_RCPT_REFUSED)

    def data_to_send(self) -> bytes:
        """All replies since the last call, for one write."""
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    # -- what happens outside of commands -----------------------------------------------------------------------------

    def hold(self) -> None:
        """Nothing is read until greet() is called."""
        self.awaiting = _GREETING_REQUESTED

    def adopt(self, terms: Terms) -> None:
        """Other terms, while it is held."""
        self._terms = terms
        self._framer.lengthen(max(terms.max_line, MAX_AUTH_LINE) + 2)

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
        """What is being received: whether that is a content, its number, and how many octets of it there are."""
        if self.state == _CONTENT:
            return True, self._messages, self._framer.content_octets
        return False, self.commands, self._framer.buffered

    def is_receiving(self) -> bool:
        """True within a message content."""
        return self.state == _CONTENT

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

    # -- replies and state --------------------------------------------------------------------------------------------

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
            self.recipients = []

    def _carry_out(self, event: Event | None) -> None:
        if type(event) is RcptRequested:
            self._add_recipient(event)
        elif type(event) is MailCommand:
            self._move(MAIL)
            self.mail = event
        elif type(event) is EhloRequested:
            self._begin(event)
        elif type(event) is AuthRequested:
            self._move(fp.AUTH)
            self.authenticated = True
        elif type(event) is MessageReceived:
            self._idle = 0
            if self._conduct is not None:
                self._conduct.forgive()

    def _begin(self, event: EhloRequested) -> None:
        self.ehlo_name = event.name
        self.esmtp = event.extensions is not None
        self._move(EHLO if self.esmtp else HELO)

    def _add_recipient(self, event: RcptRequested) -> None:
        self._move(RCPT)
        self.recipients.append(event.recipient)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read_command(self) -> Any:
        command = self._framer.next_command()
        if command is None:
            return _INCOMPLETE
        verb, argument = command
        self.commands += 1
        self._verb = verb
        self._argument = argument
        if len(argument) + 5 > self._terms.max_line and verb != fp.AUTH:  # 5: the verb and the blank behind it
            self._argument = b""
            self._say(replies.LINE_TOO_LONG)
            return None
        refusal = _REFUSALS[self.state * _STEPS + verb]
        if refusal is not None:
            self._argument = _loggable(verb, argument)
            self._say(refusal)
            return None
        try:
            if verb == MAIL:  # the usual ones need no look into the table
                return self._mail(argument)
            if verb == RCPT:
                return self._rcpt(argument)
            if verb == DATA:
                return self._data(argument)
            if verb == QUIT:
                return self._quit(argument)
            self._count_idle()
            if verb == EHLO:
                return self._ehlo(argument)
            return _HANDLERS[verb](self, argument)
        except Refused as refused:
            self._say(refused.reply)
            if verb == RCPT and not self.closed:
                self._move(_RCPT_REFUSED)
            return None

    def _ehlo(self, argument: bytes) -> Event:
        terms = self._terms
        return EhloRequested(parse_ehlo(argument), terms.extensions_under_tls if self.tls else terms.extensions)

    def _helo(self, argument: bytes) -> Event:
        return EhloRequested(parse_ehlo(argument), None)

    def _mail(self, argument: bytes) -> Event:
        self._count_idle()
        if self._conduct is not None and (refusal := self._conduct.refusal_of_sender()) is not None:
            raise Refused(refusal)
        command = parse_mail(argument, self._terms.offer_auth and self.tls)
        if command.size > self._terms.max_size:  # RFC 1870 §6.1: before the data
            raise Refused(replies.MESSAGE_TOO_BIG)
        if self._messages >= self._terms.max_messages:
            what = "too many messages on this connection"
            raise Refused(replies.closing(self._terms.hostname, what, replies.Reason.MESSAGE_LIMIT, enhanced="4.5.3"))
        return command

    def _rcpt(self, argument: bytes) -> Event:
        assert self.mail is not None
        if self._conduct is not None:
            refusal = self._conduct.refusal_of_recipient(len(self.recipients))
            if refusal is not None:
                raise Refused(refusal)
        recipient = parse_rcpt(argument, self.mail.smtputf8)
        if len(self.recipients) >= self._terms.max_recipients:
            raise Refused(replies.TOO_MANY_RECIPIENTS)
        return RcptRequested(recipient)

    def _data(self, argument: bytes) -> None:
        if argument:
            raise Refused(replies.NO_ARGUMENT)
        terms = self._terms
        self._framer.start_content(terms.max_size, terms.max_line, terms.rejects_lone_cr_lf)
        self._move(DATA)
        self._say(START_BODY)

    def _rset(self, argument: bytes) -> None:
        if argument:
            raise Refused(replies.NO_ARGUMENT)
        self._move(fp.RSET)
        self._say(replies.RESET_OK)

    def _noop(self, argument: bytes) -> None:
        parse_text(argument)  # RFC 5321 §4.1.1.9: an argument is ignored
        self._move(fp.NOOP)
        self._say(replies.NOOP_OK)

    def _vrfy(self, argument: bytes) -> None:
        if not parse_text(argument):
            raise Refused(replies.SYNTAX)
        self._move(fp.VRFY)
        self._say(replies.CANNOT_VERIFY)

    def _help(self, argument: bytes) -> None:
        parse_text(argument)
        self._move(fp.HELP)
        self._say(replies.HELP)

    def _quit(self, argument: bytes) -> None:
        if argument:
            raise Refused(replies.NO_ARGUMENT)
        self._say(BYE)
        self.quit = True
        self._move(QUIT)

    def _starttls(self, argument: bytes) -> Event | None:
        if argument:
            raise Refused(replies.NO_ARGUMENT)
        if self.tls:
            raise Refused(replies.TLS_ACTIVE)
        if not self._terms.offer_tls:
            raise Refused(replies.TLS_UNAVAILABLE)
        if self._framer.buffered:  # in clear, yet meant to be read under TLS: command injection (RFC 3207 §6)
            raise Refused(replies.TLS_PIPELINED)
        self._move(fp.STARTTLS)
        self._say(replies.START_TLS)
        return TlsRequested()

    def _auth(self, argument: bytes) -> Event | None:
        self._argument = b"***"  # no observer ever sees it
        if self.authenticated:
            raise Refused(replies.AUTH_AGAIN)
        if not self._terms.offer_auth:
            raise Refused(replies.NOT_IMPLEMENTED)
        mechanism, _, initial = argument.partition(b" ")
        if mechanism.upper() != b"PLAIN":
            raise Refused(replies.AUTH_MECHANISM if mechanism else replies.SYNTAX)
        if not self.tls:
            raise Refused(replies.AUTH_REQUIRES_TLS)
        initial = initial.strip(b" ")
        if not initial:
            self._move(states.AUTH_CONTINUED)
            self._say(replies.AUTH_CONTINUE)
            return None
        return AuthRequested(*decode_plain(initial))

    def _read_auth_line(self) -> Any:
        read = self._framer.next_line(MAX_AUTH_LINE + 2)
        if read is None:
            return _INCOMPLETE
        verb, line = read
        self._move(states.AUTH_RESPONSE)
        try:
            if verb == fp.LINE_TOO_LONG:
                raise Refused(replies.AUTH_TOO_LONG)
            if line == b"*":  # RFC 4954 §4
                raise Refused(replies.AUTH_CANCELLED)
            return AuthRequested(*decode_plain(line))
        except Refused as refusal:
            self._say(refusal.reply)
            return None

    def _read_content(self) -> Any:
        content = self._framer.next_content()
        if content is None:
            return _INCOMPLETE
        self._verb = END_OF_DATA
        mail, recipients = self.mail, self.recipients
        assert mail is not None
        self._messages += 1
        refusal = self._content_refusal(content)
        if refusal is not None:
            self._say(refusal)
            self._move(END_OF_DATA)
            return None
        self._move(END_OF_DATA)
        return MessageReceived(mail, recipients, content)

    def _content_refusal(self, content: fp.Content) -> Reply | None:
        if content.too_big:
            return replies.MESSAGE_TOO_BIG
        if content.long_line:
            return replies.BODY_LINE_TOO_LONG
        if (content.bare_cr or content.bare_lf) and self._terms.rejects_lone_cr_lf:
            return replies.LINE_ENDINGS
        if content.lost:
            return replies.NO_ROOM
        return None


def _loggable(verb: int, argument: bytes) -> bytes:
    """What an observer may see of a command that is refused before its argument is read."""
    if verb == fp.AUTH:
        return b"***"
    if verb != fp.UNKNOWN:
        return argument
    # a line that is no command may be a password that a confused client sent, in base64 or not
    word = argument.split(b" ", 1)[0].upper()
    return word if word in _ELSEWHERE else b"(%d octets)" % len(argument)


# Commands of other servers and protocols that come now and then; whoever reads a log wants to know them.
_ELSEWHERE = frozenset(
    b"ATRN BURL CONNECT ETRN GET HEAD LHLO OPTIONS POST PROXY PUT SAML SEND SOML TURN XFORWARD".split()
)

_GREETING_REQUESTED = GreetingRequested()
_INCOMPLETE: Any = object()  # more bytes are needed

_HANDLERS: dict[int, Callable[[ServerSession, bytes], Event | None]] = {
    HELO: ServerSession._helo,
    fp.RSET: ServerSession._rset,
    fp.NOOP: ServerSession._noop,
    fp.VRFY: ServerSession._vrfy,
    fp.HELP: ServerSession._help,
    fp.STARTTLS: ServerSession._starttls,
    fp.AUTH: ServerSession._auth,
}
