class Sink:
    messages: int
    recipients: int
    bytes_read: int
    connections_opened: int
    connections_open: int
    refused: int
    dropped: int
    unmarked: int
    def __init__(
        self,
        listener: int,
        control: int,
        *,
        delay: float = 0,
        refuse: dict[str, tuple[int, int]] | None = None,
        drop_every: int = 0,
        reset_every: int = 0,
        chunking: bool = True,
    ) -> None: ...
    def serve(self) -> None: ...
    def runs(self) -> dict[int, dict[str, int]]: ...
