"""Utterances → conversation → title, tasks, memories, vectors."""
