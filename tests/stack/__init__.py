"""Tests of what a user sees: the template deployed on this machine, and the command line."""
