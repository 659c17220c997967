"""What other tools call a guest → the table of a vm.d file of ours, and a report of what was not carried over.

Pure; `vmctl import` reads the files and writes ours. The readers differ (`vmbhyve`, `domain`, `script`, and `bmd`, `cbsd` and `iohyve`,
which put the manager's command line together and let `script` read it), what they make is one: `Imported`. Whatever has no place in our
table is said in a note, so that nothing is lost without a word.
"""

from bhyved.core.imports.imported import ForeignError, Imported

__all__ = ["ForeignError", "Imported"]
