"""Benchmarks of scoring, explainers, estimators and the scheduler, against the alternatives."""
