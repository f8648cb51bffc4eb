"""A test file of somebody else's, of which one test fails."""


def test_that_holds() -> None:
    """Hold."""
    assert sum([1, 1]) == 2


def test_that_fails() -> None:
    """Fail, which is what the reader of the log has to see."""
    assert sum([1, 1]) == 3
