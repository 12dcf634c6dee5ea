"""Campaigns: what to measure, where it is kept, and what runs it."""
