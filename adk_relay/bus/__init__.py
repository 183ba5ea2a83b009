"""What carries conversations between processes, through Redis. Imports core only."""
