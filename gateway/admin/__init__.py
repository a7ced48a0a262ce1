"""The admin process: HTTP for metrics, health, traces and the status page; and the commands that ask there."""
