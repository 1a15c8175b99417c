"""What a training run is configured by: the schema, the YAML files, and what follows from them. Imports no torch."""
