"""`kumo.serde`: JSON (with comments), TOML and YAML, to and from plain values."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any

import tomli_w
import yaml

from gateway.policy.kumo.values import binary, described, string

# a string, or a comment in the manner of C, C++ or a shell
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|/\*.*?\*/|//[^\n]*|#[^\n]*', re.DOTALL)


def json_parse(text: Any) -> Any:
    """JSON; comments count as blanks."""
    return _parsed("json", from_json, string(text, "json_parse"), "string")


def toml_parse(text: Any) -> Any:
    """TOML; dates and times become strings."""
    return _parsed("toml", _from_toml, string(text, "toml_parse"), "string")


def yaml_parse(text: Any) -> Any:
    """YAML 1.1 without object tags; dates and times become strings."""
    return _parsed("yaml", _from_yaml, string(text, "yaml_parse"), "string")


def json_load(path: Any) -> Any:
    """A file with JSON."""
    return load(path, "json")


def toml_load(path: Any) -> Any:
    """A file with TOML."""
    return load(path, "toml")


def yaml_load(path: Any) -> Any:
    """A file with YAML."""
    return load(path, "yaml")


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def load(path: Any, form: str, read: Callable[[str], bytes] = _content) -> Any:
    """A file's values. form: "json", "toml" or "yaml". read: gives its octets. Raises ValueError with its name."""
    path = string(path, f"{form}_load")
    try:
        octets = read(path)
    except OSError as error:
        raise ValueError(f"reading file {path}: {error.strerror}") from None
    try:
        return _parsed(form, _READERS[form], octets.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise ValueError(f"parsing {path} as {form}: {error}") from None


def _parsed(form: str, read: Callable[[str], Any], text: str, name: str) -> Any:
    try:
        return read(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"parsing {name} as {form}: {problem}") from None


def from_json(text: str) -> Any:
    """JSON, with comments or without. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return _from_json_with_comments(text)


def _from_json_with_comments(text: str) -> Any:
    def blanked(token: re.Match[str]) -> str:
        found = token.group()
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)  # lines keep their numbers

    return json.loads(_JSON_TOKEN.sub(blanked, text), parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _from_toml(text: str) -> Any:
    return _without_dates(tomllib.loads(text))


def _from_yaml(text: str) -> Any:
    return _without_dates(yaml.load(text, _LOADER))


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_READERS: dict[str, Callable[[str], Any]] = {"json": from_json, "toml": _from_toml, "yaml": _from_yaml}


def _without_dates(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_dates(item) for key, item in value.items()}
    if isinstance(value, list | set | tuple):
        return [_without_dates(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value


# --- encoding ---------------------------------------------------------------------------------------------------------


def json_encode(value: Any) -> str:
    """Compact JSON."""
    return _to_json(value, separators=(",", ":"))


def json_encode_pretty(value: Any) -> str:
    """JSON over several lines, keys sorted."""
    return _to_json(value, indent=2, sort_keys=True)


def _to_json(value: Any, **layout: Any) -> str:
    plain = _encodable(value, "json")
    try:
        return json.dumps(plain, ensure_ascii=False, allow_nan=False, **layout)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"json_encode: {error}") from None


def toml_encode(value: Any) -> str:
    """TOML; the value must be a table with names."""
    return tomli_w.dumps(_toml(value))


def toml_encode_pretty(value: Any) -> str:
    """TOML with long arrays over several lines."""
    return tomli_w.dumps(_toml(value), multiline_strings=True)


def toml_encode_pretty_compact(value: Any) -> str:
    """The same with its keys sorted on every level."""
    return tomli_w.dumps(_sorted(_toml(value)), multiline_strings=True)


def yaml_encode(value: Any) -> str:
    """YAML in block style."""
    return yaml.safe_dump(_encodable(value, "yaml"), sort_keys=False, allow_unicode=True, default_flow_style=False)


def _toml(value: Any) -> dict[str, Any]:
    plain = _without_nil(_encodable(value, "toml"))
    if not isinstance(plain, dict):
        raise ValueError(f"toml_encode: expected a table with names, got {described(value)}")
    return plain


def _encodable(value: Any, form: str) -> Any:
    """With string keys; a list or scalar as it is. Raises ValueError for what the form cannot hold."""
    if isinstance(value, dict):
        return {_key(key, form): _encodable(item, form) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item, form) for item in value]
    if isinstance(value, str):
        return binary(value).decode("utf-8", "replace")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"{form}_encode: cannot encode {described(value)}")


def _key(key: Any, form: str) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise ValueError(f"{form}_encode: a key must be a string, not {described(key)}")


def _without_nil(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nil(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nil(item) for item in value if item is not None]
    return value


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        json_parse, json_load, json_encode, json_encode_pretty, toml_parse, toml_load, toml_encode, toml_encode_pretty,
        toml_encode_pretty_compact, yaml_parse, yaml_load, yaml_encode,
    )
}  # fmt: skip

# These are names of the kumo module itself, too.
LEGACY = (
    "json_parse", "json_load", "json_encode", "json_encode_pretty", "toml_parse", "toml_load", "toml_encode",
    "toml_encode_pretty",
)  # fmt: skip
READ_FILES = frozenset({"json_load", "toml_load", "yaml_load"})  # the first argument is a path
