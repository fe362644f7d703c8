"""The sandbox, by itself: on a toy stack of its own."""
