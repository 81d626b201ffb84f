"""Runs that try to break a real server: malformed requests, vanishing clients, killed workers, and all at once."""
