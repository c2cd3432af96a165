"""Makes the small Whisper that the tests listen with (`tests/models/spoken/`); see __main__ for the steps."""
