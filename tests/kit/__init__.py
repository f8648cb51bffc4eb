"""What the tests of several folders share, a file a subject: each helper is defined once, and imported from here."""
