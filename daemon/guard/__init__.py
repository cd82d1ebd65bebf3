"""The guard: what is being missed, at any moment of the night, and is anything wrong with the tip."""
