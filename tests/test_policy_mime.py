"""msg:parse_mime(), its objects, and kumo.mimepart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail import mime
from gateway.mail.message import Message
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.problems import PolicyError, PolicyProblems
from gateway.smtp.address import parse_address
from tests.policy_tools import load, said

MAIL = (
    b"From: A <a@x.example>\r\nTo: b@y.example, Team: \"C, D\" <c@z.example>, d@z.example;\r\n"
    b"Sender: <s@x.example>\r\nMessage-ID: <1@x.example>\r\nReferences: <2@x.example>\r\n <3@x.example>\r\n"
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nAuthentication-Results: gw.example; dkim=pass header.d=x.example\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"out er\"\r\n\r\n"
    b"preamble\r\n--out er\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n"
    b"--in\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"Gr=FC=DFe\r\n--in\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<body>Hi</body>\r\n--in--\r\n"
    b"--out er\r\nContent-Type: application/octet-stream; name=other.bin\r\nContent-ID: <cid@x>\r\n"
    b"Content-Disposition: inline; filename*=utf-8''gr%C3%BC%C3%9Fe.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    b"AAEC\r\n--out er--\r\nepilogue\r\n"
)  # fmt: skip
PLAIN = b"Subject: x\r\n\r\nHello\r\n"


def run(body: str, content: bytes = MAIL) -> Message:
    policy = load(f"kumo.on('smtp_server_message_received', function(msg)\n{body}\nend)")
    message = Message("0" * 32, parse_address("a@x.example"), [parse_address("b@y.example")], data=content)
    policy.message_received(message, ConnMeta()).result()
    return message


def result(expression: str, content: bytes = MAIL) -> Any:
    body = "local root = msg:parse_mime() local h, s = root.headers, root:get_simple_structure()\n"
    return run(body + f"msg:set_meta('result', {expression})", content).meta["result"]


def error_of(expression: str) -> str:
    with pytest.raises(PolicyError) as raised:
        result(expression)
    return str(raised.value)


# --- the tree -------------------------------------------------------------------------------------------------------


def test_what_nobody_changed_is_written_as_it_was() -> None:
    assert run("msg:set_data(tostring(msg:parse_mime()))").data() == MAIL
    assert mime.parse(MAIL).raw() == MAIL


@given(st.binary(max_size=300))
def test_nothing_that_is_read_is_another_when_it_is_written(tail: bytes) -> None:
    data = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n' + tail + b"\r\n--b\r\n\r\nx\r\n--b--"
    for content in (tail, data):
        part = mime.parse(content)
        assert part.raw() == content
        mime.structure(part)


def test_the_structure_at_a_glance() -> None:
    assert result("s.text_part.body") == "Grüße"
    assert result("s.html_part.body") == "<body>Hi</body>"
    assert result("{ s.header_part == root, s.amp_html_part == nil, #s.attachments }") == [True, True, 1]
    assert result("{ s.text_part.id, s.attachments[1].part.id }") == ["0.0", "1"]
    found = "{ s.attachments[1].file_name, s.attachments[1].inline, s.attachments[1].content_id }"
    assert result(found) == ["grüße.bin", True, "cid@x"]
    assert result("s.attachments[1].part.body == '\\0\\1\\2'") is True
    assert result("s.text_part.body", PLAIN) == "Hello\r\n"


def test_a_changed_part_is_encoded_as_it_needs_and_the_others_stay() -> None:
    message = run("""
        local root = msg:parse_mime()
        local text = root:get_simple_structure().text_part
        text.body = 'vorab ä\\n' .. text.body
        msg:set_data(tostring(root))
    """)
    part = mime.structure(mime.parse(message.data()))
    assert part.text_part is not None and part.html_part is not None
    assert part.text_part.body == "vorab ä\r\nGrüße"
    assert part.text_part.charset == "utf-8"
    assert part.html_part.raw() == b"Content-Type: text/html; charset=utf-8\r\n\r\n<body>Hi</body>"
    assert part.attachments[0].part.raw() in MAIL
    assert message.first_header("Subject") == "Grüße"


@pytest.mark.parametrize(
    ("content", "encoding", "body"),
    [
        ("'plain\\nlines'", None, "plain\r\nlines"),
        ("'grün'", "quoted-printable", "grün"),
        ("('x'):rep(2000)", "quoted-printable", "x" * 2000),
        ("'\\0\\255'", "base64", b"\0\xff"),
    ],
)
def test_a_body_gets_the_encoding_that_it_needs(content: str, encoding: str | None, body: str | bytes) -> None:
    message = run(f"local p = msg:parse_mime() p:replace_body({content}) msg:set_data(tostring(p))", PLAIN)
    part = mime.parse(message.data())
    assert message.first_header("Content-Transfer-Encoding") == encoding
    read = part.body.removesuffix("\r\n" if isinstance(body, str) else b"\r\n")  # type: ignore[arg-type, union-attr]
    assert read == body
    assert max(map(len, message.data().split(b"\r\n"))) < 998


def test_parts_can_be_added() -> None:
    message = run("""
        local root = msg:parse_mime()
        root:append_part(kumo.mimepart.new_text('text/markdown', '*more*'))
        msg:set_data(tostring(root))
    """)
    [_, _, added] = mime.parse(message.data()).children or []
    assert (added.content_type, added.body) == ("text/markdown", "*more*")


def test_texts_can_be_appended() -> None:
    message = run("msg:append_text_plain '\\nsent by us' msg:append_text_html '<img>'")
    found = mime.structure(mime.parse(message.data()))
    assert found.text_part is not None and found.text_part.body == "Grüße\r\nsent by us"
    assert found.html_part is not None and found.html_part.body == "<body>Hi<img></body>"
    assert run("msg:append_text_html 'x'", PLAIN).data() == PLAIN


def test_a_part_can_be_rebuilt() -> None:
    content = b"Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ngr\xc3\xbcn\r\n"
    message = run("msg:set_data(tostring(msg:parse_mime():rebuild()))", content)
    assert message.data().isascii() and mime.parse(message.data()).body == "grün\r\n"


# --- headers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("h:subject()", "Grüße"),
        ("h:message_id()", "1@x.example"),
        ("h:references()", ["2@x.example", "3@x.example"]),
        ("h:from()", [{"name": "A", "address": {"local_part": "a", "domain": "x.example"}}]),
        ("h:sender()", {"address": {"local_part": "s", "domain": "x.example"}}),
        ("h:to()[1]", {"address": {"local_part": "b", "domain": "y.example"}}),
        ("h:to()[2].name", "Team"),
        ("h:to()[2].entries[1].name", "C, D"),
        ("h:content_type()", {"value": "multipart/mixed", "parameters": {"boundary": "out er"}}),
        ("s.attachments[1].part.headers:content_disposition().parameters.filename", "grüße.bin"),
        ("s.attachments[1].part.headers:content_id()", "cid@x"),
        ("h:mime_version()", "1.0"),
        ("h:cc() == nil", True),
        ("h:get_first_named('SUBJECT').raw_value", "=?utf-8?q?Gr=C3=BC=C3=9Fe?="),
        ("h:get_first_named('subject').value", "Grüße"),
        ("h:get_first_named('from').name", "From"),
        ("h:get_first_named('to').address_list[1].address.domain", "y.example"),
        ("h:get_first_named('from').unstructured", "A <a@x.example>"),
        ("h:get_first_named('x-none') == nil", True),
        ("h:get_first_named('authentication-results').value.results[1].props['header.d']", "x.example"),
        ("tostring(s.html_part.headers)", "Content-Type: text/html; charset=utf-8\r\n"),
    ],
)
def test_fields_are_read_as_what_they_mean(expression: str, value: object) -> None:
    def without_null(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: without_null(item) for key, item in found.items() if item is not None}
        return [without_null(item) for item in found] if isinstance(found, list) else found

    assert without_null(result(expression)) == value


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("h:get_first_named('subject').message_id", "is no message id"),
        ("h:get_first_named('to').mailbox_list", "a group stands where only mailboxes may"),
        ("h:get_first_named('subject').message_id_list", "has no message id"),
        ("h:set_to(true)", "expected a string"),
        ("h:set_to { { name = 'x' } }", "has not the form"),
        ("h:append('X Y', 'z')", "is no name of a header field"),
        ("h:set_subject 'a\\r\\nX: b'", "line break"),
        ("root:append_part 'x'", "expected a part"),
        ("kumo.mimepart.new_multipart('multipart/mixed', { 'x' })", "expected a list of parts"),
    ],
)
def test_what_cannot_be_is_an_error(expression: str, error: str) -> None:
    assert error in error_of(expression)


def test_only_the_body_of_a_part_can_be_set() -> None:
    with pytest.raises(PolicyError, match=r"only \.body of a part can be set"):
        run("msg:parse_mime().id = 'x'")


def test_fields_can_be_iterated() -> None:
    body = "local n = {} for f in msg:parse_mime().headers:iter(%s) do n[#n + 1] = f.name end msg:set_meta('n', n)"
    assert run(body % "", b"B: 1\r\nA: 2\r\nb: 3\r\n\r\n").meta["n"] == ["B", "A", "b"]
    assert run(body % "'B'", b"B: 1\r\nA: 2\r\nb: 3\r\n\r\n").meta["n"] == ["B", "b"]


def test_fields_can_be_changed() -> None:
    message = run("""
        local root = msg:parse_mime()
        local h = root.headers
        h:set_subject 'grün'
        h:set_to { { name = 'Zoë', address = { local_part = 'z', domain = 'y.example' } },
                   { name = 'G', entries = { { address = { local_part = 'g', domain = 'y.example' } } } } }
        h:set_message_id '<9@x.example>'
        h:set_references { '8@x.example', '7@x.example' }
        h:set_content_type { value = 'multipart/related', parameters = { boundary = 'out er' } }
        h:remove_all_named 'sender'
        h:prepend('X-First', 1) h:append('X-Last', 'l')
        msg:set_data(tostring(root))
    """)
    names = [name for name, _ in message.headers()]
    assert names[0] == "X-First" and names[-1] == "X-Last" and "Sender" not in names
    assert message.first_header("Subject") == "grün" and message.first_header("Message-ID") == "<9@x.example>"
    assert message.first_header("To") == "Zoë <z@y.example>, G:<g@y.example>;"
    assert message.first_header("References") == "<8@x.example> <7@x.example>"
    assert mime.parse(message.data()).content_type == "multipart/related"
    assert len(mime.parse(message.data()).children or []) == 2


# --- new messages ---------------------------------------------------------------------------------------------------


def test_a_message_is_built_of_texts_and_attachments() -> None:
    message = run("""
        local b = kumo.mimepart.builder()
        b:text_plain 'Hello, plain' b:text_html '<b>Hello</b>'
        b:attach('application/octet-stream', '\\xaa\\xbb', { file_name = 'binary.dat' })
        b:attach_part(kumo.mimepart.new_text_plain 'more')
        b:set_stable_content(true)
        msg:set_data(tostring(b:build()))
    """)
    data = message.data()
    assert b'Content-Type: multipart/mixed;\r\n\tboundary="mm-boundary"\r\n' in data and b"ma-boundary" in data
    assert b"Date: Tue, 1 Jul 2003 10:52:37 +0200\r\n" in data and b"Mime-Version: 1.0\r\n" in data
    found = mime.structure(mime.parse(data))
    assert found.text_part is not None and found.text_part.body == "Hello, plain"
    assert found.attachments[0].file_name == "binary.dat" and found.attachments[0].part.body == b"\xaa\xbb"
    assert not found.attachments[0].inline


def test_parts_can_be_put_together_by_hand() -> None:
    expression = (
        "tostring(kumo.mimepart.new_multipart('multipart/mixed', { kumo.mimepart.new_text_plain 'a',"
        " kumo.mimepart.new_html '<i>ä</i>' }, 'bb'))"
    )
    part = mime.parse(result(expression).encode())
    assert [child.content_type for child in part.children or []] == ["text/plain", "text/html"]
    assert result("kumo.mimepart.parse('Subject: hello\\r\\n\\r\\nbody\\r\\n').body") == "body\r\n"


def tostring(code: str) -> str:
    """What a policy makes of a part, a header or a field."""
    return str(said(f"result = tostring({code})"))


@pytest.mark.parametrize(
    ("code", "written"),
    [
        (
            "kumo.mimepart.new_binary('a/b', '\\xbb\\xaa', { file_name = 'b c.dat', content_id = 'x' })",
            'Content-Disposition: attachment;\r\n\tfilename="b c.dat"\r\nContent-ID: <x>\r\n'
            'Content-Type: a/b;\r\n\tname="b c.dat"\r\nContent-Transfer-Encoding: base64\r\n\r\nu6o=',
        ),
        (
            "kumo.mimepart.new_binary('a/b', '', { file_name = 'ä.dat' }).headers",
            "Content-Disposition: attachment;\r\n\tfilename*=UTF-8''%C3%A4.dat\r\n"
            'Content-Type: a/b;\r\n\tname="=?UTF-8?q?=C3=A4.dat?="\r\nContent-Transfer-Encoding: base64\r\n',
        ),
        (
            "kumo.mimepart.new_binary('a/b', '', { file_name = ('x'):rep(100) }).headers:iter('content-type')()",
            f'Content-Type: a/b;\r\n\tname*0="{"x" * 65}";\r\n\tname*1="{"x" * 35}"\r\n',
        ),
    ],
)
def test_new_parts_are_written_as_kumomta_does(code: str, written: str) -> None:
    assert tostring(code) == written


@pytest.mark.parametrize(
    ("call", "written"),
    [
        ("set_cc({ { name = 'B, C', address = { local_part = 'b', domain = 'x' } } })", 'Cc: "B, C" <b@x>\r\n'),
        ("set_to({ { address = { local_part = 'b', domain = 'x' } } })", "To: <b@x>\r\n"),
        ("set_references({ 'a@x', 'b@x' })", "References: <a@x>\r\n\t<b@x>\r\n"),
        (
            "set_content_type({ value = 'a/b', parameters = { z = '\"', c = 'd' } })",
            'a/b;\r\n\tc="d";\r\n\tz="\\""\r\n',
        ),
        ("set_subject('grün')", "Subject: =?UTF-8?q?gr=C3=BCn?=\r\n"),
    ],
)
def test_fields_are_written_as_kumomta_does(call: str, written: str) -> None:
    assert str(said(f"local h = kumo.mimepart.parse('').headers h:{call} result = tostring(h)")).endswith(written)


@pytest.mark.parametrize("call", ["set_message_id('x@y')", "set_from('a b <')", "set_sender('a@x, b@y')"])
def test_a_text_that_is_no_such_field_is_an_error(call: str) -> None:
    with pytest.raises(PolicyProblems, match="invalid header"):
        said(f"kumo.mimepart.parse('').headers:{call}")
