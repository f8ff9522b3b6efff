"""A Locust user that makes libvirt calls: for load from more machines than one.

    locust -f loadtest/locustfile.py --host unix:/run/libvirt/libvirt-sock --mix small=8,list=1

Locust loads this file by its path, as a module of no package; what it finds here is in the one that
is installed, or in the checkout that is on Python's path.
"""

try:
    from proxyd.loadtest.locust_user import LibvirtUser
except ModuleNotFoundError as missing:
    if missing.name != "proxyd.loadtest":
        raise
    from loadtest.locust_user import LibvirtUser

__all__ = ["LibvirtUser"]
