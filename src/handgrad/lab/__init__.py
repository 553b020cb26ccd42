"""The lab: a page on this machine on which you draw digits, train networks and look inside them.

`handgrad lab` starts it. `handgrad.lab.session` trains and needs no web server; `handgrad.lab.server` is the server.
"""
