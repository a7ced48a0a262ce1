# The typed, documented face of gateway/_fastpath.pyx. One section per fragment, in the same order.

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from mmap import mmap
from typing import Any, Final, Literal, Self, final

from typing_extensions import disjoint_base

# --- cidr.pxi ---------------------------------------------------------------------------------------------

class CidrError(ValueError):
    """Entries of a CIDR list that cannot be understood.

    problems: one sentence for each such entry, in the order of the list. str() joins them with ", ".
    """

    problems: list[str]
    def __init__(self, problems: list[str]) -> None: ...

@final
class CidrSet:
    """An immutable set of IP addresses: the union of some prefixes, compiled for lookup.

    An IPv4-mapped IPv6 address or prefix (::ffff:192.0.2.1, RFC 4291 §2.5.5.2) counts as the IPv4 one and as nothing
    else, so ::/0 does not cover it. Sets are equal when they cover the same addresses, however that was written.
    """

    def __new__(cls, prefixes: Iterable[str] = ()) -> Self:
        """prefixes: each an address, address/length without bits set behind the length, or "any" for all of IPv4 and
        IPv6. IPv4 may leave out octets at the end: 192.168/16 is 192.168.0.0/16, and 10 alone the host 10.0.0.0.

        Raises CidrError with every entry that is none of this, TypeError for what is not a string.
        """
    def __contains__(self, packed: bytes, /) -> bool:
        """Whether the set covers an address of 4 or 16 octets in network order. Other lengths are in no set."""
    def contains_text(self, address: str) -> bool:
        """Whether the set covers an address given as text. Raises ValueError if it is not an address."""
    def __iter__(self) -> Iterator[str]:
        """The fewest prefixes that cover the same addresses, IPv4 first, each family in address order.

        A single host comes without a length, and everything as "any".
        """
    def __len__(self) -> int:
        """How many prefixes iteration gives."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[type[CidrSet], tuple[list[str]]]: ...
    @property
    def memory_bytes(self) -> int:
        """Octets of memory that the compiled tables take."""

# --- names.pxi --------------------------------------------------------------------------------------------

@final
class PackedNames:
    """Numbers by name, made once: some 30 octets for each name, in few blocks, which processes that fork share."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        """numbers: from 0 to 2**32 - 1. Raises ValueError for a name of more than 65,535 octets, UnicodeEncodeError for
        one that is no text, OverflowError for another number."""
    def __len__(self) -> int: ...
    def __setstate__(self, state: tuple[bytes, bytes, int], /) -> None: ...
    def __reduce__(self) -> tuple[type[PackedNames], tuple[dict[str, int]], tuple[bytes, bytes, int]]: ...
    def find(self, name: str) -> int:
        """The number of a name; -1 where it has none."""
    def find_above(self, name: str) -> int:
        """The number of the longest domain that a name is below, "" at last; -1 where none has one."""

# --- dots.pxi ---------------------------------------------------------------------------------------------

def unstuff(content: bytes) -> bytes:
    """The content without the first dot of every line that starts with one (RFC 5321 §4.5.2)."""

def stuff(content: bytes) -> bytes:
    """The content with a dot before every line that starts with one (RFC 5321 §4.5.2), ending in CRLF.

    CRLF is added if it is missing; an empty content stays empty. Of lone CRs and LFs it takes no notice: see
    repair_line_endings().
    """

def repair_line_endings(stuffed: bytes, fix: bool) -> bytes:
    """A dot-stuffed content that no server, however lenient, can read as two messages.

    fix: every lone CR or LF becomes CRLF; otherwise they stay as they are. Every dot that starts a line, also
    after a lone CR or LF, is doubled; after CRLF the one that was there for that purpose counts. NULs between a
    line's start and a dot are dropped. A content without lone CRs and LFs and such NULs keeps its meaning and,
    if it was properly stuffed, its bytes.
    """

# --- content.pxi ------------------------------------------------------------------------------------------

def trim_memory() -> None:
    """Gives memory that was freed back to the system, as far as whole pages of it are free."""

@final
class ContentStore:
    """What the contents of a worker may take: octets in memory, files beyond.

    One content is in memory up to 1 MiB, or a 64th of the limit if that is less. Where half of the limit is taken,
    up to 64 KiB; where all of it is, new octets go to files as they come. A content that needs a file when there are
    `most_files` stays in memory, so whoever reads from clients should pause while the store is full.
    """

    def __init__(self, directory: str | bytes, limit: int, most_files: int, threshold: int = 1 << 20) -> None:
        """limit: octets in memory. directory: for files, which never have a name. threshold: another one than 1 MiB.

        Raises OSError where there cannot be files.
        """
    @property
    def limit(self) -> int: ...
    @property
    def most_files(self) -> int: ...
    @property
    def memory(self) -> int:
        """Octets in memory now."""
    @property
    def files(self) -> int:
        """Contents that have a file now."""
    @property
    def file_octets(self) -> int:
        """Octets in files now."""
    @property
    def written(self) -> int:
        """Contents that got a file so far."""
    @property
    def failures(self) -> int:
        """Contents that were lost so far because a file could not be made or written."""
    @property
    def error(self) -> int:
        """The errno of the last of these."""
    def is_full(self) -> bool:
        """A new content would grow beyond the limit."""

@final
class Content:
    """One message content, as it is sent on: dot-stuffed, without the last line (the dot).

    Made by Framer.next_content() or content_of(). Nothing changes it. What it has in its store it gives back when
    nobody has it any more. Reading from a file may raise OSError.
    """

    @property
    def octets(self) -> int:
        """Octets of its pieces together; 0 if it was not kept."""
    @property
    def size(self) -> int:
        """Octets of the unstuffed content, its CRLFs included (RFC 1870 §3); also if it was not kept."""
    @property
    def too_big(self) -> bool:
        """It is larger than max_size. Not kept."""
    @property
    def long_line(self) -> bool:
        """A line is longer than max_line. A line ends at an LF here, for CRLF-less senders' sake. Not kept."""
    @property
    def bare_cr(self) -> bool: ...
    @property
    def bare_lf(self) -> bool: ...
    @property
    def has_8bit(self) -> bool: ...
    @property
    def has_nul(self) -> bool: ...
    @property
    def stuffed(self) -> bool:
        """A line starts with a dot that is no content: unstuff() would change something."""
    @property
    def unsafe(self) -> bool:
        """Some server might see an end of data in it where there is none: it has a lone CR or LF, a NUL, or a line
        that begins with a single dot. Only what repaired() makes of it may be sent on."""
    @property
    def binary(self) -> bool:
        """Its octets are no lines (RFC 3030 §3): it goes out as it came, by BDAT alone, from plain_pieces()."""
    @property
    def open_end(self) -> bool:
        """The CRLF at its end is none of it: a binary content's."""
    @property
    def lost(self) -> bool:
        """Its file could not be written. Not kept."""
    @property
    def store(self) -> ContentStore | None: ...
    @property
    def in_memory(self) -> bool:
        """None of it is in a file."""
    def pieces(self) -> Iterable[bytes]:
        """Its octets in order, a list if it is in memory: what was received in one go is one piece. Out of a file
        they are read as they are asked for, at most 256 KiB at a time."""
    def plain_pieces(self) -> Iterator[bytes]:
        """The same, unstuffed."""
    def head(self, n: int) -> bytes:
        """Its first octets: at least n, or all where there are fewer. Not copied where the first piece is enough."""
    def joined(self) -> bytes:
        """All of it, in memory."""
    def behind(self, fields: list[bytes]) -> Content:
        """The content with these header fields, complete with CRLF, in front. The list is kept."""
    def mark_binary(self, open_end: bool) -> None:
        """For who has made it: its octets are no lines. open_end: its last CRLF is none of it."""
    def repaired(self, fix: bool) -> Content:
        """See repair_line_endings(). Asked again it gives the same content. Raises OSError as content_of() does."""

def content_of(stuffed: bytes, store: ContentStore | None = None) -> Content:
    """A content that came from elsewhere than a client: dot-stuffed, ending in CRLF, without lone CRs and LFs.

    Raises OSError where it has to go to a file and cannot.
    """

# --- framing.pxi ------------------------------------------------------------------------------------------

EHLO: Final = 0
HELO: Final = 1
MAIL: Final = 2
RCPT: Final = 3
DATA: Final = 4
RSET: Final = 5
NOOP: Final = 6
VRFY: Final = 7
EXPN: Final = 8
HELP: Final = 9
QUIT: Final = 10
STARTTLS: Final = 11
AUTH: Final = 12
XCLIENT: Final = 13
BDAT: Final = 14
UNKNOWN: Final = 15
LINE_TOO_LONG: Final = 16
VERB_NAMES: Final[tuple[str, ...]]  # by number, UNKNOWN and LINE_TOO_LONG included

@final
class Framer:
    """The bytes that arrive on one SMTP connection, cut into command lines and message contents.

    Lines end in CRLF and a content in CRLF.CRLF, nothing else (RFC 5321 §2.3.8, §4.1.1.4); bytes may be fed in
    any portions. Bytes that were fed wait until they are asked for; while they wait, further ones are copied
    to them, so a paused session should stop reading.
    """

    def __new__(cls, max_command_line: int, store: ContentStore | None = None) -> Self:
        """max_command_line: octets of the longest command line, its CRLF included (RFC 5321 §4.5.3.1.4).

        store: for contents; without it they stay in memory.
        """
    def lengthen(self, max_command_line: int) -> None:
        """Another limit, from the next command on."""
    def feed(self, data: bytes) -> None:
        """Appends what was received. Keeps a reference; copies only if something is still waiting."""
    def first(self) -> int:
        """The octet that comes next, which stays; -1 where there is none."""
    argument: bytes  # of the command that was read last
    overlong: int  # the verb of the last line that was LINE_TOO_LONG

    def next_verb(self) -> int:
        """The verb of the next command line, whose argument is in `argument` then; -1 if more bytes are needed.

        The verb is one of the numbers above, known by the line's first word, in any case; the argument is what
        follows, without blanks (SP, HTAB) around it. A line with another first word is UNKNOWN and the argument
        is all of it. A line that is longer than allowed is discarded as it arrives, in bounded memory, and is
        LINE_TOO_LONG with argument b"" once its CRLF was seen; its verb is in `overlong`. A lone CR or LF is like any
        other octet.
        Raises RuntimeError between start_content() and the end of that content.
        """
    def next_line(self, max_line: int = 12288) -> tuple[int, bytes] | None:
        """The next line as it is: (UNKNOWN, line without CRLF), (LINE_TOO_LONG, b""); or None if more bytes are needed.

        For the client's side of an AUTH exchange. max_line: octets, CRLF included (RFC 4954 §4: 12288).
        """
    def start_content(
        self, max_size: int, max_line: int, strict: bool = False, in_chunks: bool = False, binary: bool = False
    ) -> None:
        """What comes next is a message content: call it when 354 is answered, then next_content().

        max_size: octets of the unstuffed content (RFC 1870); max_line: octets of a line without CRLF and stuffed
        dot (RFC 5321 §4.5.3.1.6: 998). strict: no lone CR or LF. What breaks one of these is not kept, only counted.
        binary: its octets are no lines, so max_line and strict do not count.
        """
    def next_content(self) -> Content | None:
        """The content, once its CRLF.CRLF has arrived, or None if more bytes are needed; what follows it stays.

        Takes in all that was fed so far. Raises RuntimeError without start_content().
        """
    def start_chunk(self, octets: int) -> None:
        """So many octets come next that are no command: of the content that was started, else of none."""
    def next_chunk(self) -> bool:
        """Takes in what was fed of the chunk; whether that was all of it."""
    def so_far(self) -> Content:
        """The content of the chunks until now, with what was seen in it."""
    def end_chunks(self) -> Content:
        """The content of all chunks, as DATA would have brought it. A last line without CRLF gets one."""
    def abandon(self) -> None:
        """There is no content any more, in spite of its chunks."""
    def needs_room(self) -> bool:
        """The content that is being received cannot grow now without passing the limit of its store."""
    def is_bulky(self) -> bool:
        """The content that is being received is a large one so far, or goes to a file."""
    @property
    def content_octets(self) -> int:
        """Octets of the content that is being received, so far, and of all chunks: what grows as it goes on."""
    @property
    def buffered(self) -> int:
        """Octets fed and not consumed yet."""

# --- path.pxi ---------------------------------------------------------------------------------------------

def plain_from(argument: bytes) -> tuple[str, str, bytes] | None:
    """(mailbox, its domain, what follows) of `FROM:<dot-string@domain> …` in plain ASCII, with the domain normalised.

    None for every other form, right or wrong: null paths, quoted strings, literals, source routes, UTF-8, missing
    brackets.
    """

def plain_to(argument: bytes) -> tuple[str, str, bytes] | None:
    """The same for `TO:<dot-string@domain> …`."""

def read_parameters(text: bytes) -> list[tuple[str, bytes | None]] | None:
    """(keyword in upper case, value) of each of the parameters of MAIL or RCPT; None where the syntax is wrong."""

# --- bytes.pxi --------------------------------------------------------------------------------------------

def is_ascii(text: str) -> bool:
    """text.isascii(), a C call for compiled modules."""

# --- mime.pxi ---------------------------------------------------------------------------------------------

def count_fields(content: bytes, name: bytes) -> int:
    """How many header fields of that name, which is in lower case, stand before the first blank line of a message."""

# --- report.pxi -------------------------------------------------------------------------------------------

UNREADABLE_REASONS: tuple[str, ...]
"""Why a message that claims to be a report is not one, the closed list:

`no_boundary`: the multipart/report has no boundary parameter; `no_parts`: nothing is delimited by it;
`too_many_parts`: no report among as many as are looked at; `no_report_part`: no part of the kind that its
report-type names; `no_recipient`: no recipient group with an address and an Action or Status;
`no_feedback_type`: the feedback part lacks its Feedback-Type.
"""

RECOGNISED: tuple[str, ...]
"""How a report was recognised, the closed list:

`report`: by the letter; `mixed`, `multipart`: its part stands in a multipart/mixed or another multipart; `wrapped`: in
a multipart inside another one; `private_type`: its part has a private or slightly wrong type; `claimed`: a report-type
and no such part; `x_failed_recipients`, `qsbmf`, `junk`: other forms (gateway/reports/formats).
"""

@final
class Report:
    """What a message reports, or why that cannot be read. Values are text as in the message, unfolded; octets that
    are not UTF-8 are lone surrogates (`surrogateescape`). Field names are in lower case."""

    kind: Literal["dsn", "arf", "unreadable"] | None
    """None: only a candidate."""
    reason: str | None
    """One of UNREADABLE_REASONS when `kind` is "unreadable"."""
    how: str
    """How it was recognised, one of RECOGNISED."""
    candidate: str | None
    """The form that the message may have, one of `reports.formats.FORMS`, where it is not recognised by the letter."""
    inferred: bool
    """Whether `infer` was called: a guess."""
    mixed: bool
    """A multipart/mixed message that counts as a DSN because of its null reverse-path."""
    truncated: bool
    """There were more than 20,000 lines that begin like a delimiter, 10,000 recipient groups or 100,000 fields; what
    is missing was not read."""
    per_message: dict[str, str] | None
    """Of a DSN: the per-message fields (RFC 3464 §2.2); of repeated fields the first."""
    per_recipient: list[dict[str, str]] | None
    """Of a DSN: the recipient groups (RFC 3464 §2.3), at least one of them usable."""
    feedback: dict[str, list[str]] | None
    """Of a feedback report: its fields (RFC 5965 §3), all values of each."""
    original: tuple[int, int] | None
    """Where the original message, or its header section, begins and ends in the scanned octets, still encoded."""
    quoted: bytes | None
    """The original, decoded, where it is no part of its own."""
    dot_stuffed: bool
    """As the scan was told."""

    @property
    def leading(self) -> tuple[int, int] | None:
        """Where the part for people begins, with its header section, and ends; None by the letter of the RFCs."""

    @property
    def fields_from(self) -> tuple[int, int] | None:
        """Where the content of the status or feedback part begins and ends that the fields are from."""

    def original_fields(
        self, message: bytes | bytearray | memoryview, names: tuple[str, ...] = ()
    ) -> list[tuple[str, str]]:
        """(name, value) of the original's header section, at most 1,000 of them; `message` is what was scanned.

        names: only fields of these names, in lower case; one with a final dash stands for all that begin with it.
        Names are spelt as in the original. base64 and quoted-printable parts are decoded. Raises ValueError if
        the original lies beyond the end of `message`.
        """

    def header_fields(
        self, message: bytes | bytearray | memoryview, names: tuple[str, ...] = ()
    ) -> list[tuple[str, str]]:
        """The same of the message's own header section."""

    def prose(self, message: bytes | bytearray | memoryview, most: int) -> tuple[bytes, str, bool, int, int] | None:
        """The text for people: (octets, decoded; its charset, or ""; whether it is HTML; where the first `most`
        octets of it, encoded, begin and end in `message`). A text that is no HTML is preferred. None: there is none.
        """

    def infer(
        self,
        kind: Literal["dsn", "arf"],
        *,
        per_message: dict[str, str] | None = None,
        per_recipient: list[dict[str, str]] | None = None,
        feedback: dict[str, list[str]] | None = None,
        quoted: bytes | None = None,
    ) -> None:
        """Makes a report of a candidate, marked as inferred; the fields as of a report by the letter."""

def scan_report(
    message: bytes | bytearray | memoryview,
    *,
    dot_stuffed: bool = False,
    null_sender: bool = False,
    tolerant: bool = False,
    listed_sender: bool = False,
    placed: Callable[[str, int, int], str] | None = None,
) -> Report | None:
    """Whether a raw message is a DSN (RFC 3464, 6533) or a feedback report (RFC 5965), and its fields.

    None: it does not claim to be one; a message that is not multipart/… costs no more than its header section.
    `dot_stuffed`: lines are as they were in DATA (RFC 5321 §4.5.2). Time is linear in the size of the message.

    By the letter, unless something is known of the reverse-path. `tolerant`: also what only nearly is a report.
    `null_sender`: it is `<>`, so that a status part counts in any multipart, which may be wrapped in another one, and
    candidates are told. `listed_sender`: it is of those whose complaints may be candidates. Both are tolerant.

    `placed`: makes the values of fields of (value, where the field begins, where it ends); both -1 in encoded parts.
    """

def scan_received(content: bytes, null_sender: bool, listed_sender: bool) -> Report | None:
    """`scan_report`, tolerant and of what is dot-stuffed, as every message is looked at that the gateway receives."""

def outline(message: bytes) -> list[tuple[str, int, int]]:
    """(Content-Type without parameters, in lower case, or ""; where it begins, with its header section, and ends) of a
    message and of its first 32 parts."""

def compare_at_once(octets: int) -> int:
    """How many octets of a message the scanner compares at once: 32, 16 or 0, for one by one; as many as the processor
    can at most, which is what it begins with. Returns what it is then. What is found does not depend on it."""

# --- json.pxi ---------------------------------------------------------------------------------------------

@disjoint_base
class JsonLine:
    """JSON put together from pieces that are always the same, and a value between any two of them.

    Each value goes into the next gap. What fills one raises ValueError where none is left; `finish` where any is.
    """

    size: int  # octets written so far
    def start(self, pieces: tuple[bytes, ...]) -> None:
        """Begins anew. The pieces are one more than the gaps. Raises ValueError where there is none."""

    def text(self, value: str | None) -> None:
        """A string, its lone surrogates replaced by question marks; null for None."""

    def integer(self, value: int) -> None:
        """A number. Raises OverflowError for one of more than 64 bits with its sign."""

    def json(self, value: bytes) -> None:
        """What is JSON already."""

    def time(self, seconds: int, fraction: int, digits: int) -> None:
        """Seconds since 1970 as the string `YYYY-MM-DDTHH:MM:SS.fffZ` (RFC 3339), for years of up to four digits.

        digits: how many of the fraction to write, 1 to 20; it counts units of ten to the power of -`digits` seconds.
        """

    def finish(self) -> bytes:
        """The whole."""

# --- counters.pxi -----------------------------------------------------------------------------------------
PAGE_HEADER_WORDS: int

@final
class HistogramSlot:
    """Where a histogram's words are in a page, and its upper bounds (at most 32, ascending)."""

    first: int
    def __init__(self, first: int, bounds: Sequence[float]) -> None: ...

@final
class CounterPage:
    """A process's page of 64-bit words in memory shared with others.

    Only the owner writes, and no call enters the kernel; anyone who maps the memory may read. Slots come from
    gateway/metrics; one outside the page raises IndexError. A page of zero bytes is a valid, unused page.
    """

    pid: int  # the owner's, 0 while nobody owns the page
    worker: int  # the owner's worker slot, -1 for the supervisor
    generation: int
    state: int  # a gateway.metrics.State
    heartbeat: float  # CLOCK_MONOTONIC seconds, written by the owner's event loop
    def __new__(cls, buffer: bytearray | memoryview | mmap) -> Self:
        """buffer: writable, aligned to 8 bytes, held for as long as the page lives (an mmap cannot be closed)."""
    def __len__(self) -> int: ...
    def add(self, slot: int, n: int = 1) -> None: ...
    def set(self, slot: int, value: int) -> None: ...
    def set_float(self, slot: int, value: float) -> None:
        """For the gauges declared as fractional."""
    def get(self, slot: int) -> int: ...
    def get_float(self, slot: int) -> float: ...
    def observe(self, histogram: HistogramSlot, value: float) -> None:
        """Count `value` (in the histogram's base unit: seconds) under the first bound that is not below it."""

# --- limits.pxi -------------------------------------------------------------------------------------------
# In memory that processes share, zero at first. A key has 16 octets; a name is for people, of 47 octets.

RATE_TAKE: int
RATE_CHARGE: int
RATE_LOOK: int

@final
class RateCells:
    """Cells of the Generic Cell Rate Algorithm, in sets of eight. All processes write them, a set at a time.

    A cell is anybody's once it is unused again. A key that finds its set full of others shares one further cell with
    all like it, so that no limit is forgotten. shared: how often that was so in this process.
    """

    shared: int
    def __new__(cls, buffer: bytearray | memoryview) -> Self: ...
    def __init__(self, buffer: bytearray | memoryview) -> None:
        """Raises ValueError where there is no room for a set."""
    def seed(self) -> int:
        """A random number, the same for all processes, for keys that nobody can choose."""
    def turn(
        self,
        key: bytes,
        name: bytes,
        interval: float,
        burst: int,
        now: float = -1.0,
        amount: float = 1.0,
        mode: int = 0,
    ) -> tuple[int, float, float | None]:
        """Counts `amount` more, if they may come: how many more may come at once then, in how many seconds it is unused
        again, and after how many these may come, None where they may now.

        interval: seconds for one. burst: so many may come at once. now: CLOCK_MONOTONIC seconds; negative: asked here.
        mode: RATE_TAKE; RATE_CHARGE counts in any case, up to twice the burst; RATE_LOOK counts nothing.
        """
    def holders(self, now: float = -1.0) -> list[tuple[bytes, float, int, float]]:
        """Name, interval and burst of every cell that is not unused, and the seconds until it is."""

@final
class HeldCells:
    """How many somebody holds at a time, in a table for each process: only that one writes it, all add them up.

    tables: how many there are. own: the number of this process's, -1 for who only looks. Its table is empty at first;
    what a process held that is no more counts until somebody would be refused for it.
    """

    tables: int
    own: int
    def __new__(cls, buffer: bytearray | memoryview, size: int, own: int) -> Self: ...
    def __init__(self, buffer: bytearray | memoryview, size: int, own: int) -> None:
        """size: octets of a table. Raises ValueError."""
    def hold(self, key: bytes, name: bytes, most: int) -> int:
        """One more, if all processes together hold fewer than `most`: what release() needs to know; 0 if not."""
    def release(self, key: bytes, how: int) -> None:
        """One less. how: what hold() returned."""
    def count(self, key: bytes) -> int:
        """How many all processes hold."""
    def holders(self) -> dict[bytes, int]:
        """All that are held, by name."""

# --- sockets.pxi ------------------------------------------------------------------------------------------
# fd is a non-blocking TCP socket. Everything raises OSError where the socket is broken; having to wait is no error.

def accept(fd: int) -> tuple[int, tuple[str, int]] | tuple[()] | None:
    """(descriptor, peer's host and port) of the next connection that waits at a listening socket. None: there is none.
    Nothing in it: the peer has reset it.

    The new socket does not block and is not inherited by other programs. A host is without scope.
    """

def local_address(fd: int) -> tuple[str, int]:
    """Host and port of this end."""

def step(generator: Generator[Any, Any, Any], value: object) -> Any:
    """What a generator yields next after being sent `value` (None at first), or what it returns where that ends it."""

@final
class LuaLimits:
    """Watches over one Lua state. All methods belong to the holder of the GIL, which Lua code that runs is not.

    serial: of the code that runs, or ran last. running: some does. used: octets that the state holds. exceeded: what
    runs was refused memory. overdue: what runs is being ended.
    """

    serial: int
    running: bool
    @property
    def used(self) -> int: ...
    @property
    def exceeded(self) -> bool: ...
    @property
    def overdue(self) -> bool: ...
    @property
    def place(self) -> bytes:
        """Where in the policy it was ended: "FILE:LINE: "."""
    def __init__(self, functions: dict[str, int], state: int, used: int) -> None:
        """functions: addresses of functions of Lua. state: address of the main coroutine. used: octets so far."""
    def begin(self, memory: int, state: int) -> None:
        """Code begins to run, in the coroutine at this address, that may make the Lua state grow by so many octets."""
    def end(self) -> bool:
        """It is over, or waits. Returns `overdue`."""
    def enter(self, state: int) -> None:
        """From now on the coroutine at this address runs, inside of what ran before."""
    def leave(self) -> None:
        """It does not any more."""
    def stop(self) -> None:
        """Ends the code that runs, from another thread: every so many instructions it gets an error."""

def receive(fd: int) -> bytes | None:
    """What has arrived, at most 256 KiB; b"": the peer has closed its side; None: nothing yet."""

def send(fd: int, data: bytes) -> int:
    """How many octets the kernel took."""

def send_chunks(fd: int, chunks: list[bytes], start: int) -> int:
    """The same for many chunks, of the first without `start` octets. More than 1,024 chunks are never taken at once."""

def shut_down(fd: int) -> None:
    """Tells the peer that nothing more will come; it may still send."""

def close(fd: int) -> None:
    """Gives the descriptor back."""

@final
class Epoll:
    """Tells which of many sockets can be read or written, for as long as they can (level-triggered).

    A closed socket is forgotten unless another process has it, too.
    """

    def __new__(cls) -> Self: ...
    def fileno(self) -> int:
        """Readable while wait() has something to tell."""
    def watch(self, fd: int, read: bool, write: bool, known: bool) -> None:
        """Look out for these (one of them at least). known: fd is being watched already."""
    def forget(self, fd: int) -> None:
        """Watch it no more."""
    def wait(self) -> int:
        """How many sockets are ready now, at most 256; does not wait. The calls below are about these."""
    def descriptor(self, place: int) -> int:
        """The descriptor of the socket in this place, from 0."""
    def readable(self, place: int) -> bool:
        """Reading will bring data, the end, or an error."""
    def writable(self, place: int) -> bool:
        """Writing will find room or an error."""
    def close(self) -> None:
        """Watches nothing any more."""
