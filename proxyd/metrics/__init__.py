"""What the proxy shows to monitoring over HTTP: Prometheus' text format, and whether it is well."""
