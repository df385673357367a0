"""The demo: a sample fleet, the whole loop once, and the evidence of every step. Uses the same operations as everybody."""
