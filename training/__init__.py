"""The recipe of models/demo: units, features, training loop, evaluation, export. Not installed with the services."""
