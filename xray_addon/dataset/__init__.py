"""Datasets of X-Rays on disk: items, quality gates, records of refused items, reports."""
