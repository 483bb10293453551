"""The microcontroller between computer and motors: its serial protocol, the link to it, and its C firmware.

`framing` finds frames in bytes, `protocol` makes `messages` of them, `greeting` opens a session, `link` keeps one alive
through unplugging and resets, `finder` asks serial ports whether a bridge is on them, `selftest` tries a board, `flash`
programs it. ``docs/bridge-protocol.md`` decides. This room imports no other one.
"""
