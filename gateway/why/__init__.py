"""Why: what the gateway would answer and for what reason, found out with its own code and nothing delivered."""
