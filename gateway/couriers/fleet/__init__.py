"""The fleet as a courier: members, the connections to them, and what their answers mean."""
