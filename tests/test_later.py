"""What is put off until somebody uses it: see proxyd/later.py."""

import subprocess
import sys
import textwrap

from proxyd.later import PUT_OFF


def said_by(program):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_loop_and_tls_are_there_without_the_systems_openssl():
    assert (
        said_by(
            """
        import sys
        from proxyd.later import put_off
        put_off()
        import proxyd.daemon.serve, proxyd.daemon.load_tls, proxyd.session.tls_greeting
        print(*({"_ssl", "_hashlib"} & set(sys.modules)))
        """
        )
        == []
    )


def test_who_needs_a_module_that_was_put_off_has_all_of_it():
    assert said_by(
        """
        from proxyd.later import put_off
        put_off()
        import hashlib, hmac, idna, ssl, trio
        from hashlib import sha256
        print(hashlib.sha256 is sha256, hmac.compare_digest(b"1", b"1"))
        print(idna.encode("b\\u00fcro").decode(), type(ssl.create_default_context()).__name__)
        print(*(type(each).__name__ for each in (hashlib, hmac, idna, ssl)))
        print(hasattr(ssl, "nothing"))
        """
    ) == ["True", "True", "xn--bro-hoa", "SSLContext", *["module"] * 4, "False"]


def test_threads_that_need_it_at_one_time_all_find_it_whole():
    assert said_by(
        """
        import threading
        from proxyd.later import put_off
        put_off()
        import ssl
        begin, found = threading.Barrier(8), []
        def use():
            begin.wait()
            found.append(ssl.get_server_certificate.__name__)
        threads = [threading.Thread(target=use) for _ in range(8)]
        for each in threads: each.start()
        for each in threads: each.join()
        print(*set(found), len(found))
        """
    ) == ["get_server_certificate", "8"]


def test_a_module_that_cannot_be_loaded_says_so_each_time(tmp_path):
    (tmp_path / "idna.py").write_text("import nothing_of_that_name")
    assert (
        said_by(
            f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from proxyd.later import put_off
        put_off()
        import idna
        for _ in range(2):
            try:
                idna.encode
            except ImportError as error:
                print(error.name)
        """
        )
        == ["nothing_of_that_name"] * 2
    )


def test_each_is_one_that_there_is():
    words = " ".join(sorted(PUT_OFF))
    assert said_by(f"import {', '.join(words.split())}; print('ok')") == ["ok"]
