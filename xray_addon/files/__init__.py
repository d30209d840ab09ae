"""Files: what is written whole or not at all, and what each format is."""
