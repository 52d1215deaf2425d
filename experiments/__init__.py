"""Experiments: one module a question, each with a verdict that can be no.

    python -m experiments list | run NAME | check NAME | plot NAME | all

What a module must have stands in `experiments.contract`.
"""
