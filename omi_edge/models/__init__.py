"""Model files under control: what there is, where it lies, and that it is what it should be.

``shelf.Shelf.locate`` is the one place that every loader asks. ``hub`` is the one module that opens a connection to
somewhere else, and only `omi-edge models pull` uses it.
"""
