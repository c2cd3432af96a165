"""The one encrypted file, and everything that reads or writes it."""
