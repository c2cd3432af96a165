"""The stages joined: capture, listen, memory and store."""
