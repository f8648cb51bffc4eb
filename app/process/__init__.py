"""The process half of the house: shims, trees, and what is remembered of a run."""
