"""`rayxai bench`: measurements against the alternatives."""
