"""What finished runs have learnt: features on other data, likeness to the teacher, what was transferred."""
