"""The recipe of models/demo: units, features, training loop, evaluation, export; not installed."""
