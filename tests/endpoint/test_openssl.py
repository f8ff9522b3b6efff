"""The private parts of pyOpenSSL: in one file, and looked for before anything is made of them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from OpenSSL import SSL, crypto

from proxyd.endpoint import openssl

ROOT = Path(__file__).parents[2]
IMPORT = """
import OpenSSL.{module} as module
{change}
from proxyd.cli.main import main
raise SystemExit(main(["-f", "{config}", "--check-config"]))
"""


def test_no_other_file_reaches_below_pyopenssl():
    reaching = {
        str(path.relative_to(ROOT))
        for folder in ("proxyd", "certs", "loadtest")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"OpenSSL\._|hazmat\.bindings", path.read_text())
    }
    assert reaching == {"proxyd/endpoint/openssl.py"}


def test_what_is_there_now_is_all_that_is_needed():
    context = SSL.Context(SSL.TLS_METHOD)
    openssl.demand(openssl._lib, context, SSL.Connection(context, None), crypto.PKey())


def test_what_is_not_there_is_named_and_so_are_the_releases_that_have_it():
    with pytest.raises(ImportError, match="SSL_read") as found:
        openssl.demand(SimpleNamespace(), SimpleNamespace(), SimpleNamespace(), crypto.PKey())
    words = str(found.value)
    assert "pyopenssl 26.3 or a later 26" in words
    assert {"_context", "_raise_ssl_error", "X509_STORE_up_ref"} <= set(re.findall(r"\w+", words))
    assert found.value.name == "OpenSSL"


def test_these_are_the_releases_that_may_be_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "pyopenssl>=26.3,<27" in project["dependencies"]


@pytest.mark.parametrize(
    ("module", "change", "lacking"),
    [
        ("_util", "class L: pass\nmodule.lib = L()", "SSL_CTX_set1_curves_list"),
        ("SSL", "del module.Connection._raise_ssl_error", "_raise_ssl_error"),
    ],
)
def test_another_version_is_one_line_for_whoever_starts_the_daemon(
    tmp_path, module, change, lacking
):
    config = tmp_path / "virtproxyd.conf"
    config.write_text("listen_tls = 1\n")
    if module == "_util":  # everything of pyOpenSSL's own is loaded by then
        change = f"import OpenSSL.SSL\n{change}"
    script = IMPORT.format(module=module, change=change, config=config)
    ended = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"proxyd: {config}:1:14: listen_tls = 1: pyopenssl ")
    assert lacking in line
    assert "install pyopenssl 26.3 or a later 26" in line
