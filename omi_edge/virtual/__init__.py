"""A pendant without hardware."""
