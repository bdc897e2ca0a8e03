"""Structured mutation of whatever strangers can hand to a node: documents, requests, Consul's and ExaBGP's answers,
the kernel's messages.

Each case is made by a ``random.Random`` from a seed and a number, so that every find can be made again. Hypothesis
makes some hundred cases a second of what is made here in thousands; the laws use it, and this does not.
"""
