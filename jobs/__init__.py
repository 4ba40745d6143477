"""The commands: each module parses its arguments, builds a config, calls the inner rings and returns an exit code."""
