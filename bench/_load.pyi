from collections.abc import Sequence

class Load:
    messages: int
    sent: int
    acked: int
    refused: int
    lost: int
    unknown: int
    recipients_acked: int
    connects: int
    connect_failures: int
    bytes_sent: int
    last_errno: int
    size: int
    def __init__(
        self,
        address: bytes,
        *,
        connections: int,
        contents: Sequence[tuple[bytes, bytes]],
        order: Sequence[int],
        recipients: Sequence[bytes],
        messages: int,
        run: int,
        per_message: int = 1,
        rate: float = 0,
        pipelining: bool = False,
        per_connection: int = 0,
    ) -> None: ...
    @property
    def idle(self) -> int: ...
    @property
    def failed(self) -> bool: ...
    @property
    def seconds(self) -> float: ...
    def open(self, seconds: float) -> bool: ...
    def step(self, seconds: float) -> bool: ...
    def close(self) -> None: ...
    def latencies(self) -> dict[int, int]: ...
    def refusals(self) -> dict[int, int]: ...

def bucket(latency_ns: int) -> int: ...
def body_hash(content: bytes) -> int: ...
def mark(run: int, number: int, body: int) -> bytes: ...
