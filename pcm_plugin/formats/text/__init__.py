"""Text files of any encoding, decoded to UTF-8."""
