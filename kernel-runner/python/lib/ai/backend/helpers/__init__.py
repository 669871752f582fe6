"""Helpers for code that runs in a session."""
import importlib
import os
import site
import subprocess
import sys

__all__ = ("install",)


def install(pkgname, force_install=False):
    """Installs a package, or a list of packages, for the user of this session, so that it can be
    imported at once.

    ``force_install`` installs what is there already anew. Raises ``RuntimeError`` if pip fails;
    what pip says is printed.
    """
    packages = [pkgname] if isinstance(pkgname, str) else list(pkgname)
    command = [sys.executable, "-m", "pip", "install"]
    if sys.prefix == sys.base_prefix:
        # A virtual environment is the user's own, and has no other place for packages.
        command.append("--user")
    if force_install:
        command.append("--force-reinstall")
    # The home goes with the session: distributions that guard their own packages lose nothing.
    environ = dict(os.environ, PIP_BREAK_SYSTEM_PACKAGES="1")
    sys.stdout.flush()
    code = subprocess.call(command + packages, env=environ)
    if code:
        raise RuntimeError("pip could not install %s: exit code %d" % (", ".join(packages), code))
    folder = site.getusersitepackages()
    if site.ENABLE_USER_SITE and os.path.isdir(folder):
        site.addsitedir(folder)
    importlib.invalidate_caches()
