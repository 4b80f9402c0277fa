"""Damaged raw data by the thousand: `make fuzz`."""
