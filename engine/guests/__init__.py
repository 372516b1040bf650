"""Guests: explainers of others, which call a function of the model instead of asking a pool.

A guest is a live stack. It runs in a thread that stops wherever it asks for values, and goes on
when a later step of the same unit has them (`stack`). Stopped threads wait in this process
(`parking`); a step that finds none starts the guest anew and answers its earlier calls from the
rounds so far (`replay`), so that results never depend on a thread having survived.
"""
