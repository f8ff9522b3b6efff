"""proxyd's own RPC: the admin protocol, which virt-admin speaks."""
