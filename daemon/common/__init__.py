"""What every room uses: errors, words, files, the clock, signals, sockets. It imports nothing of ours but models."""
