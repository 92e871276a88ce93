"""The command line: one function a subcommand, read from its signature."""
