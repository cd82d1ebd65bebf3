"""Faults injected into a real service: a producer that knows what it wrote, and a judge of what came out."""
