"""Model hosts: load a model once, answer evaluation requests for as long as the sweep lasts."""
