"""The tests: a file per subject, a docstring per promise."""
