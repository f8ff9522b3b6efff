"""TLS: what a handshake is made with, and whether a certificate lets a client in."""
