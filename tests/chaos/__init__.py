"""Processes that die, stores that fail, servers that crash and clocks that jump: after it all the lake is right."""
