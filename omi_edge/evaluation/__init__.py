"""How well and how fast recognisers work here: on the owner's recordings, side by side, kept to be compared again."""
