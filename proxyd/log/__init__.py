"""libvirt's logging: lines, filters, outputs, and the thread that writes."""
