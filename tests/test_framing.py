"""SMTP framing: any split of a stream gives the same commands and contents as the byte-at-a-time oracle,
and no content leaves in a form that another server could read as two messages.
"""

import itertools
import re
import tracemalloc
from collections.abc import Iterable

import pytest
import reference
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import _fastpath
from gateway._fastpath import DATA, LINE_TOO_LONG, MAIL, RCPT, UNKNOWN, VERB_NAMES, Content, Framer

MAX_COMMAND = 40
MAX_LINE = 12


def next_command(framer: Framer) -> tuple[int, bytes] | None:
    """The verb and argument of the next command; None if more bytes are needed."""
    verb = framer.next_verb()
    return None if verb < 0 else (verb, framer.argument)


def fragments(*pieces: bytes, max_size: int = 30) -> st.SearchStrategy[bytes]:
    """Streams made of the given pieces, which are chosen to be trouble in each other's neighbourhood."""
    return st.lists(st.sampled_from(pieces), max_size=max_size).map(b"".join)


CONTENTS = fragments(
    b"\r\n", b"\r", b"\n", b".", b"\r\n.", b"\r\n.\r", b"\r\n..", b"\0", b"a", b" ", b"\x8f", b"b" * 9, b"c" * 13
)
COMMANDS = fragments(
    b"\r\n", b"\r", b"\n", b" ", b"\t", b"MAIL", b"mail", b"FROM:<a@b>", b"EHLO", b"x", b"QUIT\r\n", b"y" * 17, b"\xff"
)


def cuts_of(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def splits(stream: bytes, cuts: Iterable[int]) -> list[list[bytes]]:
    """The stream whole, octet by octet, cut around each CR and LF, and at the given places."""
    return [
        [stream],
        [bytes([octet]) for octet in stream],
        re.split(rb"(?<=[\r\n])", stream),
        re.split(rb"(?=[\r\n.])", stream),
        cuts_of(stream, cuts),
    ]


CUTS = st.lists(st.integers(0, 500), max_size=8)


def commands_of(
    portions: Iterable[bytes], max_command_line: int = MAX_COMMAND
) -> tuple[list[tuple[str, bytes]], Framer]:
    framer = Framer(max_command_line)
    found = []
    for portion in portions:
        framer.feed(portion)
        while (command := next_command(framer)) is not None:
            found.append((VERB_NAMES[command[0]], command[1]))
    return found, framer


def waits(framer: Framer, rest: bytes) -> bool:
    """Exactly these octets wait in the framer."""
    if framer.buffered != len(rest):
        return False
    framer.feed(b"\r\n")
    found = []
    while (command := next_command(framer)) is not None:
        found.append((VERB_NAMES[command[0]], command[1]))
    return found == reference.commands(rest + b"\r\n", MAX_COMMAND)[0]


def framed(portions: Iterable[bytes], max_size: int = 1 << 30, max_line: int = 998) -> tuple[Content | None, Framer]:
    """The content at the start of the portions, and the framer with what follows it."""
    framer = Framer(MAX_COMMAND)
    framer.start_content(max_size, max_line)
    content = None
    for portion in portions:
        framer.feed(portion)
        if content is None:
            content = framer.next_content()
    return content, framer


# --- commands -----------------------------------------------------------------------------------------------


def test_verb_numbers_are_the_indexes_of_their_names():
    assert [getattr(_fastpath, name) for name in VERB_NAMES] == list(range(len(VERB_NAMES)))


@pytest.mark.parametrize("name", reference.VERBS)
def test_verb_is_known_in_any_case_alone_and_with_an_argument(name):
    for word in (name, name.lower(), name.title()):
        for line, argument in ((word, b""), (f"{word} x", b"x"), (f"{word}\t x y \t", b"x y"), (f"{word}  ", b"")):
            framer = Framer(512)
            framer.feed(line.encode() + b"\r\n")
            assert next_command(framer) == (getattr(_fastpath, name), argument)


@pytest.mark.parametrize(
    "line",
    [b"", b" ", b" QUIT", b"MAILFROM:<a@b>", b"MAIL:", b"QUI", b"QUITX", b"STARTTLSX", b"\r", b"\rQUIT", b"QUIT\r",
     b"QUIT\n", b"\0QUIT", b"Q\xd5IT", b"-!)4", b"GET / HTTP/1.1", b"x" * 300],
)  # fmt: skip
def test_line_with_another_first_word_is_unknown_and_kept_whole(line):
    framer = Framer(512)
    framer.feed(line + b"\r\n")
    assert next_command(framer) == (UNKNOWN, line)
    assert next_command(framer) is None


@given(COMMANDS, CUTS)
def test_commands_are_those_of_the_oracle_however_they_are_split(stream, cuts):
    expected, rest = reference.commands(stream, MAX_COMMAND)
    for portions in splits(stream, cuts):
        found, framer = commands_of(portions)
        assert found == expected
        if len(rest) < MAX_COMMAND:
            assert waits(framer, rest)


def test_a_hundred_commands_in_one_portion_come_out_in_order():
    stream = b"".join(b"RCPT TO:<r%d@in.example>\r\n" % number for number in range(100))
    found, framer = commands_of([stream], 512)
    assert found == [("RCPT", b"TO:<r%d@in.example>" % number) for number in range(100)]
    assert framer.buffered == 0


@pytest.mark.parametrize("length", [MAX_COMMAND - 1, MAX_COMMAND, MAX_COMMAND + 1, MAX_COMMAND + 2, 5000])
@pytest.mark.parametrize("cut", [None, -3, -2, -1, 20])
def test_only_a_line_over_the_limit_is_too_long_and_the_next_command_works(length, cut):
    stream = b"NOOP " + b"x" * (length - 7) + b"\r\n"
    portions = [stream] if cut is None else [stream[:cut], stream[cut:]]
    found, _ = commands_of([*portions, b"QUIT\r\n"])
    assert [verb for verb, _ in found] == ["NOOP" if length <= MAX_COMMAND else "LINE_TOO_LONG", "QUIT"]


@pytest.mark.parametrize("noise", [b"x", b"\r", b"\n", b"\n."])
def test_over_long_line_is_discarded_in_bounded_memory(noise):
    framer = Framer(MAX_COMMAND)
    for _ in range(64):
        framer.feed(noise * 16384)
        assert next_command(framer) is None
        assert framer.buffered <= 1
    framer.feed(b"x\r\nQUIT\r\n")
    assert next_command(framer) == (LINE_TOO_LONG, b"")
    assert next_command(framer) == (_fastpath.QUIT, b"")


@pytest.mark.parametrize("portion", [1, 7, 10_000])
def test_of_an_over_long_line_the_verb_is_known(portion):
    for word in (*VERB_NAMES[:15], "AUTHOR"):
        framer = Framer(MAX_COMMAND)
        line = word.lower().encode() + b" " + b"x" * 2 * MAX_COMMAND + b"\r\n"
        for at in range(0, len(line), portion):
            assert next_command(framer) is None
            framer.feed(line[at : at + portion])
        assert next_command(framer) == (LINE_TOO_LONG, b"")
        assert VERB_NAMES[framer.overlong] == (word if word != "AUTHOR" else "UNKNOWN")


def test_next_line_gives_the_line_as_it_is():
    framer = Framer(10)
    framer.feed(b" AGEAYg== \r\n" + b"x" * 29 + b"\r\nQUIT\r\nA")
    assert framer.next_line() == (UNKNOWN, b" AGEAYg== ")
    assert framer.next_line(30) == (LINE_TOO_LONG, b"")
    assert next_command(framer) == (_fastpath.QUIT, b"")
    assert framer.next_line() is None


# --- contents -------------------------------------------------------------------------------------------------


@given(CONTENTS, fragments(b"QUIT\r\n", b"\r\n.\r\n", b"\xff\0\r\n", b"\n", max_size=3), CUTS)
@example(b"", b"", [])
@example(b"a", b"\n.\n", [3, 5])
def test_content_is_that_of_the_oracle_however_it_is_split(start, rest, cuts):
    stream = start + b"\r\n.\r\n" + rest
    expected = reference.content(stream)
    for portions in splits(stream, cuts):
        content, framer = framed(portions, max_line=MAX_LINE)
        assert content.joined() == (b"" if content.long_line else expected.stuffed)
        assert waits(framer, expected.rest)
        assert content.size == expected.size
        assert content.too_big is False
        assert content.bare_cr is expected.bare_cr
        assert content.bare_lf is expected.bare_lf
        assert content.has_8bit is (not expected.stuffed.isascii())
        assert content.has_nul is (b"\0" in expected.stuffed)
        assert content.stuffed is (expected.size != len(expected.stuffed))
        assert content.unsafe is (content.bare_cr or content.bare_lf or content.has_nul or expected.loose_dot)
        assert content.long_line is expected.has_line_longer_than(MAX_LINE)


@given(CONTENTS, st.integers(0, 60), CUTS)
def test_content_over_the_size_limit_is_swallowed_and_measured(start, max_size, cuts):
    stream = start + b"\r\n.\r\n"
    expected = reference.content(stream)
    for portions in splits(stream, cuts):
        content, framer = framed(portions, max_size=max_size)
        assert content.too_big is (expected.size > max_size)
        assert content.size == expected.size
        assert b"".join(content.pieces()) == (b"" if content.too_big else expected.stuffed)
        assert waits(framer, expected.rest)


@given(CONTENTS, CUTS)
def test_no_content_without_its_end_of_data(stream, cuts):
    if reference.content(stream) is None:
        for portions in splits(stream, cuts):
            assert framed(portions)[0] is None


@given(CONTENTS, st.integers(4070, 4100), st.sampled_from([b"d" * 7, b"d\r\n", b"\r\n."]), CUTS)
def test_content_is_that_of_the_oracle_also_far_into_a_long_one(tail, distance, filler, cuts):
    stream = (filler * distance)[:distance] + tail + b"\r\n.\r\nQUIT\r\n\xff\0"
    expected = reference.content(stream)
    for portions in ([stream], cuts_of(stream, [distance + cut % 20 for cut in cuts])):
        content, framer = framed(portions, max_line=MAX_LINE)
        assert content.joined() == (b"" if content.long_line else expected.stuffed)
        assert waits(framer, expected.rest)
        assert (content.size, content.bare_cr, content.bare_lf) == (expected.size, expected.bare_cr, expected.bare_lf)
        assert content.has_8bit is (not expected.stuffed.isascii())
        assert content.has_nul is (b"\0" in expected.stuffed)
        assert content.long_line is expected.has_line_longer_than(MAX_LINE)


def test_dot_directly_after_354_is_an_empty_content():
    for portions in splits(b".\r\n", [1, 2]):
        content, framer = framed(portions)
        assert (content.pieces(), content.size, content.unsafe, content.stuffed) == ([], 0, False, False)
        assert framer.buffered == 0


LENIENT_ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r.\n", b"\n.\r", b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n", b"\n\n.\n\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\0\n.\r\0\n", b"\0\r\n\0.\0\r\n",
    b"\n\0.\n", b"\r\n. \r\n", b"\r\n.\t\n",
]  # fmt: skip


@pytest.mark.parametrize("end", LENIENT_ENDS)
def test_nothing_but_crlf_dot_crlf_ends_the_data(end):
    smuggled = b"MAIL FROM:<evil@example.org>\r\nDATA\r\n"
    stream = b"first" + end + smuggled + b"\r\n.\r\nQUIT\r\n"
    for portions in splits(stream, [6, 7, 8, 9]):
        content, framer = framed(portions)
        assert b"".join(content.pieces()) == b"first" + end + smuggled + b"\r\n"
        assert next_command(framer) == (_fastpath.QUIT, b"")
        assert content.unsafe


def test_commands_pipelined_behind_a_content_wait_for_it():
    stream = b"DATA\r\nhello\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
    for portions in splits(stream, [3, 9, 17]):
        framer = Framer(512)
        framer.feed(b"".join(portions))
        assert next_command(framer) == (DATA, b"")
        framer.start_content(100, 998)
        assert framer.next_content().pieces() == [b"hello\r\n"]
        assert next_command(framer) == (MAIL, b"FROM:<a@b>")
        assert next_command(framer) == (RCPT, b"TO:<c@d>")


def test_commands_and_contents_cannot_be_confused():
    framer = Framer(512)
    with pytest.raises(RuntimeError, match="no content"):
        framer.next_content()
    framer.start_content(100, 998)
    with pytest.raises(RuntimeError, match="a content"):
        next_command(framer)
    with pytest.raises(RuntimeError, match="a content"):
        framer.next_line()


def test_big_portions_are_kept_by_reference():
    portions = [b"x" * 70 + b"\r\n" for _ in range(3)]
    portions = [portion * 1000 for portion in portions]
    content, _ = framed([*portions, b"end\r\n.\r\n"])
    assert all(chunk is portion for chunk, portion in zip(content.pieces(), portions, strict=False))
    assert content.pieces()[3:] == [b"end\r\n"]


def test_content_sent_octet_by_octet_does_not_become_as_many_chunks():
    content, _ = framed(bytes([octet]) for octet in b"0123456\r\n" * 2000 + b".\r\n")
    assert len(content.pieces()) < 10


def test_oversize_content_is_swallowed_in_bounded_memory():
    framer = Framer(512)
    framer.start_content(100_000, 998)
    tracemalloc.start()
    try:
        for number in range(100):
            framer.feed(b"%063d\r\n" % number * 1000)
            assert framer.next_content() is None
        assert tracemalloc.get_traced_memory()[0] < 250_000
    finally:
        tracemalloc.stop()
    framer.feed(b".\r\n")
    content = framer.next_content()
    assert (content.too_big, content.size, content.pieces()) == (True, 6_500_000, [])


@pytest.mark.parametrize("length", [998, 999])
@pytest.mark.parametrize("dots", [b"", b"."])
@pytest.mark.parametrize("cut", [0, 1, 2, 3, 500, 1000, 1001, 1002, 1003, 1004])
def test_only_a_line_over_the_limit_marks_the_content_wherever_it_is_split(length, dots, cut):
    line = dots * 2 + b"x" * (length - len(dots)) + b"\r\n"
    stream = b"a\r\n" + line + b"b\r\n" * 700 + b".\r\n"
    for portions in (cuts_of(stream, [cut]), cuts_of(stream, [cut, 1200])):
        assert framed(portions)[0].long_line is (length > 998)


# --- dots and line endings ----------------------------------------------------------------------------------


@given(CONTENTS)
def test_unstuff_and_stuff_are_those_of_the_oracle_and_each_others_inverse(content):
    assert _fastpath.unstuff(content) == reference.unstuff(content)
    assert _fastpath.stuff(content) == reference.stuff(content)
    if content.endswith(b"\r\n") or not content:
        assert _fastpath.unstuff(_fastpath.stuff(content)) == content


def test_contents_without_dots_are_not_copied():
    content = b"Subject: x\r\n\r\na.b\r\n"
    assert _fastpath.unstuff(content) is content
    assert _fastpath.stuff(content) is content


def reads_as_one_message(stuffed: bytes) -> bool:
    """No idea of a line by which a line before the last one holds a single dot, for every idea known to us."""
    stream = b"\r\n" + stuffed + b".\r\n"
    views = [
        stream,
        stream.replace(b"\0", b""),  # servers that drop NULs
        re.sub(rb"\0[^\n]*", b"\r", stream),  # servers that read a line up to LF and then treat it as a C string
        stream.replace(b"\r", b""),  # servers that drop CRs
        re.sub(rb"\r+\n", b"\n", stream),
        re.sub(rb"[ \t\0]+(?=[\r\n])", b"", stream),  # servers that trim lines
    ]
    lone_dot = re.compile(rb"(?<=[\r\n])\.(?=[\r\n])")
    return all(
        [found.start() for found in lone_dot.finditer(view)] == [len(view.rstrip(b"\r\n")) - 1] for view in views
    )


@pytest.mark.parametrize("end", LENIENT_ENDS)
@pytest.mark.parametrize("fix", [False, True])
def test_known_smuggling_sequences_come_out_as_one_message(end, fix):
    content = b"first" + end + b"MAIL FROM:<evil@example.org>\r\n"
    assert reads_as_one_message(_fastpath.repair_line_endings(content, fix))


@given(CONTENTS, st.booleans())
def test_repaired_content_reads_as_one_message_everywhere(start, fix):
    content, _ = framed([start + b"\r\n.\r\n"])
    repaired = _fastpath.repair_line_endings(b"".join(content.pieces()), fix)
    assert repaired == reference.repair_line_endings(b"".join(content.pieces()), fix)
    assert reads_as_one_message(repaired)
    if fix:
        assert repaired.count(b"\r") == repaired.count(b"\n") == repaired.count(b"\r\n")


@given(CONTENTS)
def test_content_that_is_not_marked_unsafe_reads_as_one_message_as_it_is(start):
    content, _ = framed([start + b"\r\n.\r\n"])
    if not content.unsafe:
        octets = content.joined()
        assert reads_as_one_message(octets)
        assert _fastpath.repair_line_endings(octets, False) == octets


@given(CONTENTS)
def test_repair_changes_what_a_strict_server_reads_only_behind_lone_line_endings_and_nuls(start):
    content, _ = framed([start + b"\r\n.\r\n"])
    if not content.has_nul and not (content.bare_cr or content.bare_lf):
        octets = content.joined()
        for fix in (False, True):
            assert reference.unstuff(_fastpath.repair_line_endings(octets, fix)) == reference.unstuff(octets)
