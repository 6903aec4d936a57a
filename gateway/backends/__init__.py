"""Clients of the tiers behind the gateway."""
