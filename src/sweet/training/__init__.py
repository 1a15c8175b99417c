"""One training loop for every verb, and the verbs themselves."""
