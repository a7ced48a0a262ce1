"""Log records: what is written about every message and refusal, and the segment files they go to."""
