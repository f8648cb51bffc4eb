"""The log half of the house: one format, one writer, one reader."""
