"""Keeps hosts busy and survives their deaths: the only place that knows Ray's failure modes."""
