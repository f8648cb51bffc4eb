"""What a shim and its supervisor share, for every process of ours: what they say, and what a shim starts with."""
