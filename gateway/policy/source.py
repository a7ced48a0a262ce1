"""PolicySource: the text of a policy and of every Lua file it loads, as one value.

A worker that is started again later must run the policy that was checked, whatever the disk says by then. So the
first one to read a file keeps its bytes here, and the value is handed to every other process.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.config import Deployment
from gateway.policy.delivery_side import Left

if TYPE_CHECKING:
    from gateway.policy.domain_table import DomainTable

HERE = Deployment()  # a policy that says everything itself


class PolicySource:
    """A snapshot of Lua files. Picklable.

    path: the main file's path as the operator wrote it. files: path → content, in the order of reading; None where
    there was no such file, because `require` must go on not finding it. tables: what was made of large files, by what
    it was made of; the files themselves are not kept then. deployment: where it runs.
    secrets: what vaults said while it was loaded. left: what it was found to leave to the fleet.
    """

    __slots__ = ("deployment", "files", "left", "path", "secrets", "tables")

    def __init__(
        self,
        path: str,
        files: dict[str, bytes | None],
        tables: dict[str, DomainTable] | None = None,
        deployment: Deployment = HERE,
        secrets: dict[str, bytes] | None = None,
    ) -> None:
        self.path = path
        self.files = files
        self.tables = {} if tables is None else tables
        self.deployment = deployment
        self.secrets = {} if secrets is None else secrets
        self.left = Left()

    @classmethod
    def read(cls, path: str, deployment: Deployment = HERE) -> PolicySource:
        """Starts a snapshot from the disk. Raises OSError when the main file cannot be read."""
        return cls(path, {path: Path(path).read_bytes()}, deployment=deployment)

    @property
    def main(self) -> bytes:
        """The main file's content."""
        content = self.files[self.path]
        assert content is not None
        return content

    def digest(self) -> str:
        """A hash of all that was read: the same for the same text, wherever it is kept."""
        found = sha256()
        for path, content in sorted(self.files.items()):
            name = "" if path == self.path else path
            found.update(f"{name}\0{'-' if content is None else len(content)}\0".encode())
            found.update(content or b"")
        for made_of in sorted(self.tables):
            found.update(made_of.encode())
        return found.hexdigest()[:16]

    def calls_method(self, name: str) -> bool:
        """Whether a line of its Lua files calls a method of that name before a comment begins."""
        call = re.compile(rb"^(?:(?!--).)*?:\s*%b\s*\(" % name.encode(), re.MULTILINE)
        files = (text for path, text in self.files.items() if text and (path == self.path or path.endswith(".lua")))
        return any(map(call.search, files))

    def load(self, path: str) -> bytes | None:
        """The content of a file that the policy asks for; None where there is none. The first answer stays."""
        if path not in self.files:
            try:
                self.files[path] = Path(path).read_bytes()
            except OSError:
                self.files[path] = None
        return self.files[path]

    def __reduce__(self) -> tuple[type[PolicySource], tuple[Any, ...]]:
        return PolicySource, (self.path, self.files, self.tables, self.deployment, self.secrets)
