"""Kernels with and without a refusal of descriptors."""

import pytest

# Linux since 6.16 refuses descriptors at their sender, for who asks for that.
ON_AN_OLDER_KERNEL = False
PASSRIGHTS = [
    pytest.param(True, id="passrights"),
    pytest.param(ON_AN_OLDER_KERNEL, id="an older kernel"),
]
