"""The template, and what is built of it."""
