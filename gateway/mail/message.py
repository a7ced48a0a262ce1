"""Message: one accepted message between its end of data and its records, with its envelope and metadata.

The content stays dot-stuffed as it was received, and is neither joined nor copied unless somebody looks at or edits it.
No SMTP dialogue, no Lua, no I/O.
"""

from __future__ import annotations

from typing import Any

from gateway._fastpath import Content, ContentStore, content_of, repair_line_endings, stuff, unstuff
from gateway.mail import headers
from gateway.mail.headers import HeaderField
from gateway.smtp.address import EnvelopeAddress

NULL_QUEUE = "null"  # KumoMTA's name for "discard on purpose"
_KEPT = 1 << 20  # octets of a whole message that are kept for the next one who asks
_HEAD = 16_384  # octets in which most header blocks have their end


class Message:
    """One message.

    id: 32 hex digits. sender, recipients: the envelope. meta: JSON values by name. received_at: unix time.
    content: without the prepended fields. size: octets of the whole, prepended fields included. attempts: deliveries
    tried so far, for policies that count them.
    """

    def __init__(
        self,
        id: str,
        sender: EnvelopeAddress,
        recipients: list[EnvelopeAddress],
        content: Content | None = None,
        *,
        meta: dict[str, Any] | None = None,
        data: bytes = b"",
        received_at: float = 0.0,
        fix_line_endings: bool = False,
    ) -> None:
        """The content comes from the session (`content`) or from elsewhere (`data`, not stuffed).

        fix_line_endings: turn lone CRs and LFs of it into CRLF; without it they stay, but cannot end the data.
        """
        self.id = id
        self.sender = sender
        self.recipients = recipients
        self.meta = {} if meta is None else meta
        self.received_at = received_at
        self.attempts = 0
        self._store: ContentStore | None = None
        self.content: Content = content  # type: ignore[assignment]  # None until there are data
        if content is None:
            self.set_data(data)
            return
        self._store = self.content.store
        if self.content.unsafe:  # no server behind us may see an end of data in it, whatever it takes for one
            self.content = self.content.repaired(fix_line_endings)
        self.size = self.content.size
        self._prepended: list[bytes] = []
        self._data: bytes | None = None
        self._fields: list[HeaderField] | None = None

    def for_others(self, id: str, recipients: list[EnvelopeAddress]) -> Message:
        """The same as it is now, for other recipients."""
        return Message(
            id, self.sender, recipients.copy(), self.wire(), meta=self.meta.copy(), received_at=self.received_at
        )

    def data(self) -> bytes:
        """The whole message, unstuffed, prepended fields included."""
        if self._data is not None:
            return self._data
        data = b"".join([*self._prepended, *self.content.plain_pieces()])
        if len(data) <= _KEPT:
            self._data = data
        return data

    def set_data(self, data: bytes) -> None:
        """Replaces the whole message. Lone CRs and LFs become CRLF, and it ends in CRLF, unless it is no lines."""
        self.content = self._remade(data)
        self.size = self.content.size
        self._prepended = []
        self._data = None
        self._fields = None

    def _remade(self, data: bytes) -> Content:
        if self.content is None or not self.content.binary:
            return content_of(repair_line_endings(stuff(data), fix=True) if data else b"", self._store)
        content = content_of(stuff(data), self._store)
        content.mark_binary(bool(data) and not data.endswith(b"\r\n"))
        return content

    def prepend(self, header: bytes) -> None:
        """Puts header fields, complete with CRLF, in front. Costs nothing per octet of the content."""
        if header.startswith(b".") or not header.endswith(b"\r\n"):
            raise ValueError("not a header field")
        self._prepended = [header, *self._prepended]
        self._data = self._fields = None
        self.size += len(header)

    def wire(self) -> Content:
        """What goes between DATA and the final dot."""
        return self.content.behind(self._prepended) if self._prepended else self.content

    def fields(self) -> list[HeaderField]:
        """The header fields, in order."""
        if self._fields is None:
            self._fields = headers.parse(self.header_block())
        return self._fields

    def first_header(self, name: str) -> str | None:
        """The decoded value of the first field of that name (any case), or None."""
        wanted = name.lower()
        return next((field.value for field in self.fields() if field.name.lower() == wanted), None)

    def all_headers(self, name: str) -> list[str]:
        """The decoded values of all fields of that name (any case)."""
        wanted = name.lower()
        return [field.value for field in self.fields() if field.name.lower() == wanted]

    def headers(self) -> list[tuple[str, str]]:
        """(name as spelled, decoded value) of all fields."""
        return [(field.name, field.value) for field in self.fields()]

    def replace_fields(self, fields: list[HeaderField]) -> None:
        """Gives the message another header, its body unchanged."""
        data = self.data()
        end = headers.block_end(data)
        self.set_data(b"".join(field.raw for field in fields) + (data[end:] if end is not None else b""))

    def queue_name(self, recipient: EnvelopeAddress | None = None) -> str:
        """KumoMTA's queue name: meta `queue`, or `[campaign:][tenant]@domain[!routing_domain]`.

        recipient: whose domain it is, the first one's by default. Raises ValueError where one of these metadata is
        no string.
        """
        queue = self._name("queue")
        if queue is not None:
            return queue
        campaign, tenant, routing_domain = self._name("campaign"), self._name("tenant"), self._name("routing_domain")
        if recipient is None and self.recipients:
            recipient = self.recipients[0]
        name = "" if recipient is None else recipient.domain
        if campaign is not None:
            name = f"{campaign}:{tenant or ''}@{name}"
        elif tenant is not None:
            name = f"{tenant}@{name}"
        return name if routing_domain is None else f"{name}!{routing_domain}"

    def _name(self, key: str) -> str | None:
        value = self.meta.get(key)
        if value is None or isinstance(value, str):
            return value
        raise ValueError(f"meta '{key}' must be a string, not {value!r}")

    def header_block(self) -> bytes:
        """The header fields as they stand, unstuffed, without the blank line. The content is not joined for it."""
        whole = self.wire()
        block = whole.head(_HEAD)
        while (end := headers.block_end(block)) is None and len(block) < whole.octets:
            block = whole.head(2 * len(block))
        block = block if end is None else block[:end]
        return unstuff(block) if whole.stuffed else block


def parse_queue_name(name: str) -> tuple[str | None, str | None, str, str | None]:
    """(campaign, tenant, domain, routing_domain) of a queue name; None for what it does not have."""
    prefix, at, domain = name.partition("@")
    if not at:
        prefix, domain = "", name
    campaign, colon, tenant = prefix.partition(":")
    if not colon:
        campaign, tenant = "", prefix
    domain, _, routing_domain = domain.partition("!")
    return campaign or None, tenant or None, domain, routing_domain or None
