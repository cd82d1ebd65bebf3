"""Child processes: spawned, spoken to in frames, limited, ended with us."""
