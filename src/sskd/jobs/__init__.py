"""From arguments to a finished run: what a job is, what it is made of, how it is run or a network brought along."""
