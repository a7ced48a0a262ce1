"""Workers' windows, as both sides of them see them: how the word of a page tells a socket's name, and who is behind it.

The socket itself is service/window.py's, what is read there streaming.py's.
"""

from __future__ import annotations

import socket
import struct

_CREDENTIALS = struct.Struct("3i")  # unix(7), struct ucred: process, user, group


def number_of(name: bytes) -> int:
    """A name that the kernel picked (unix(7), autobind), as a word of a page; never 0."""
    return int(name[1:], 16) + 1


def name_of(number: int) -> str:
    """The name again."""
    return f"\0{number - 1:05x}"


def behind(connection: socket.socket) -> tuple[int, int]:
    """Process and user of the other end of a Unix socket: of who connected, or of who listens."""
    octets = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(octets)
    return process, user
