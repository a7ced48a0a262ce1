"""`kumo.file_type`: kinds of files by their first octets, by their extension or by their media type.

Signatures are puremagic's, media types of extensions also Python's. No file is opened here.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from gateway.policy.kumo.values import binary, string

if TYPE_CHECKING:
    from puremagic import PureMagic

_ANYTHING = "application/octet-stream"


def from_bytes(octets: Any) -> dict[str, Any]:
    """the kind of file that begins with these octets: `{ name =, extensions = {…}, media_types = {…} }`; what no
    signature fits is plain text or binary data
    """
    content = binary(string(octets, "from_bytes"))
    matches = _matches(content)
    if matches:
        surest = max(len(one.byte_match) for one in matches)
        return _kind([one for one in matches if len(one.byte_match) == surest])
    if _is_text(content):
        return {"name": "Plain text", "extensions": ["txt"], "media_types": ["text/plain"]}
    return {"name": "Binary data", "extensions": [], "media_types": [_ANYTHING]}


def from_extension(extension: Any) -> list[dict[str, Any]]:
    """a list of the kinds of files with an extension, which is written without a dot"""
    wanted = "." + string(extension, "from_extension").lower().removeprefix(".")
    found = [_kind(group) for group in _by_name(one for one in _known() if one.extension.lower() == wanted)]
    usual = mimetypes.types_map.get(wanted)
    if usual is not None and not any(usual in one["media_types"] for one in found):
        found.append(_usual(usual))
    return found


def from_media_type(media_type: Any) -> list[dict[str, Any]]:
    """a list of the kinds of files with a media type"""
    wanted = string(media_type, "from_media_type").lower()
    found = [_kind(group) for group in _by_name(one for one in _known() if one.mime_type.lower() == wanted)]
    usual = _usual(wanted)
    new = {*usual["extensions"]}.difference(*(one["extensions"] for one in found))
    return [*found, usual] if new else found


def _matches(content: bytes) -> Sequence[Any]:
    import puremagic  # reads its tables, which few policies need

    if not content:
        return []
    try:
        found: Sequence[Any] = puremagic.magic_string(content)
    except puremagic.PureError:
        return []
    return found


@cache
def _known() -> list[PureMagic]:
    import puremagic.main

    return [*puremagic.main.magic_header_array, *puremagic.main.extension_only_array]


def _by_name(kinds: Iterable[PureMagic]) -> Iterable[list[PureMagic]]:
    groups: dict[str, list[PureMagic]] = {}
    for one in kinds:
        groups.setdefault(one.name, []).append(one)
    return groups.values()


def _kind(same: Sequence[Any]) -> dict[str, Any]:
    extensions = dict.fromkeys(one.extension.lower().removeprefix(".") for one in same if one.extension)
    media_types = dict.fromkeys(one.mime_type for one in same if one.mime_type)
    return {"name": same[0].name, "extensions": list(extensions), "media_types": list(media_types) or [_ANYTHING]}


def _usual(media_type: str) -> dict[str, Any]:
    extensions = [one.removeprefix(".") for one in mimetypes.guess_all_extensions(media_type)]
    return {"name": media_type, "extensions": extensions, "media_types": [media_type]}


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError as error:
        return error.end == len(content) and error.reason == "unexpected end of data" and b"\0" not in content


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (from_bytes, from_extension, from_media_type)
}
