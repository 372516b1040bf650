"""Turns a run folder into tables, figures and a report; needs neither Ray nor models."""
