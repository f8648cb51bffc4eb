"""Random faults, thrown at a real service while callers poll it, and what they may not do: `make chaos`."""
