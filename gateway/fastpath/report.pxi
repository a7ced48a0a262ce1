# Report scanner.
