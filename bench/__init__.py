"""Measurements of LLM Shell beside what people would use instead, each pair in the same run."""
