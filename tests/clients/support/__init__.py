"""Helpers of the client tests. Imports nothing: `kserve_calls` runs in a process that must not see tritonclient."""
