"""Hostile input, made up by mutation and guided by coverage: one module per target.

    python -m tests.fuzz frames --time 60        needs atheris (pip install '.[fuzz]')
    pytest tests/fuzz                            the kept corpus and fixed mutations of it, without

A target is a function `one_input(data)` that takes any bytes. What it raises is a finding: it has
caught the errors that the code documents. `WORDS` are what a mutation may well put in.
"""
