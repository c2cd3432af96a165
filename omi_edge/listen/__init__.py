"""PCM → speech segment → words → turns."""
