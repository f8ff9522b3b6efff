"""SASL mechanisms and what they prove a client by."""
