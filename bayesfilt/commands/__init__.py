"""The commands behind `bayesfilt`, one module each: its options, and what it prints.

An options class is a frozen dataclass; its comments are the help text. Nothing here imports
jax before a command runs, so that `--help` answers at once.
"""
