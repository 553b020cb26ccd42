"""The lab: a page on this machine on which you draw digits, train networks and look inside them.

`handgrad lab` starts it. `handgrad.lab.session` trains and needs no web server; `handgrad.lab.server` is the server.
"""

from typing import TYPE_CHECKING, Any

from ..errors import submodule

if not TYPE_CHECKING:  # modules that few programs need

    def __getattr__(name: str) -> Any:
        return submodule(__name__, name)
